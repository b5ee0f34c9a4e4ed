//! `--tuning FILE`: what `tune` of a generated project found, read and checked.

use std::fs;
use std::path::Path;

use forge_formats::Format;
use forge_plan::families::Tokens;
use forge_plan::geometry::{Geometries, Geometry, Shape};
use forge_plan::{Family, Plan};
use serde_json::Value;

use crate::Error;

/// The version of the file's form that is read.
const VERSION: u64 = 1;

/// A tuning file: geometries with the keys they come from.
#[derive(Debug, Default)]
pub struct Tuning {
    entries: Vec<(Shape, Geometry)>,
}

impl Tuning {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Error::Tuning`] with the key that is missing or wrong.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::io(path))?;
        parse(&text).map_err(|reason| Error::Tuning { path: path.to_owned(), reason })
    }

    /// For the plan.
    pub fn geometries(&self) -> Geometries {
        self.entries.iter().copied().collect()
    }

    /// Whether the plan has a product for every entry and gave it the entry's geometry.
    ///
    /// # Errors
    /// [`Error::Tuning`] with the entry that it has no use for.
    pub fn check(&self, path: &Path, plan: &Plan) -> Result<(), Error> {
        for (index, (shape, geometry)) in self.entries.iter().enumerate() {
            let products = || {
                plan.kernels.iter().filter_map(|kernel| match &kernel.family {
                    Family::Gemv(gemv) if gemv.tokens == Tokens::One && gemv.shape == *shape => Some(gemv),
                    _ => None,
                })
            };
            let Shape { format, rows, cols } = shape;
            let reason = if products().next().is_none() {
                format!("geometries[{index}]: this model has no matrix-vector product of {format} [{rows}, {cols}]")
            } else if products().any(|gemv| gemv.geometry != *geometry) {
                let rows = geometry.rows_per_simdgroup;
                format!("geometries[{index}].geometry.rows_per_simdgroup: {rows} is odd, and the product is gated")
            } else {
                continue;
            };
            return Err(Error::Tuning { path: path.to_owned(), reason });
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Tuning, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let version = &value["forge_tuning"];
    if version.as_u64() != Some(VERSION) {
        return Err(format!("forge_tuning: {version} is not {VERSION}, the version that this forge reads"));
    }
    let list = value["geometries"].as_array().ok_or("geometries: not a list")?;
    let mut tuning = Tuning::default();
    for (index, value) in list.iter().enumerate() {
        let (shape, geometry) = entry(value).map_err(|reason| format!("geometries[{index}].{reason}"))?;
        if tuning.entries.iter().any(|(known, _)| *known == shape) {
            let Shape { format, rows, cols } = shape;
            return Err(format!("geometries[{index}]: {format} [{rows}, {cols}] for the second time"));
        }
        tuning.entries.push((shape, geometry));
    }
    Ok(tuning)
}

/// One element of `geometries`; an error begins with the key.
fn entry(value: &Value) -> Result<(Shape, Geometry), String> {
    let format = value["format"].as_str().ok_or("format: not a text")?;
    let format: Format = format.parse().map_err(|error| format!("format: {error}"))?;
    let number = |object: &Value, key: &str| {
        let number = object[key].as_u64().and_then(|number| usize::try_from(number).ok());
        number.filter(|&number| number > 0).ok_or_else(|| format!("{key}: not a whole number above 0"))
    };
    let shape = Shape { format, rows: number(value, "rows")?, cols: number(value, "cols")? };
    let object = &value["geometry"];
    let field = |key: &str| number(object, key).map_err(|reason| format!("geometry.{reason}"));
    let geometry = Geometry {
        rows_per_simdgroup: field("rows_per_simdgroup")?,
        simdgroups: field("simdgroups")?,
        split_k: field("split")?,
    };
    geometry.check(shape).map_err(|error| format!("geometry.{error}"))?;
    Ok((shape, geometry))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{ "forge_tuning": 1, "device": "x", "model": "y", "geometries": [
        { "format": "Q8_0", "rows": 512, "cols": 256, "geometry": { "rows_per_simdgroup": 2, "simdgroups": 8, "split": 1 },
          "tried": [] } ] }"#;

    #[test]
    fn a_file_is_read() {
        let geometries = parse(GOOD).expect("parses").geometries();
        let shape = Shape { format: Format::Q8_0, rows: 512, cols: 256 };
        let geometry = Geometry { rows_per_simdgroup: 2, simdgroups: 8, split_k: 1 };
        assert_eq!(geometries.into_iter().collect::<Vec<_>>(), [(shape, geometry)]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let entry = GOOD.split_once('[').and_then(|(_, rest)| rest.rsplit_once("] }")).expect("a list").0;
        for (right, wrong, message) in [
            (
                "\"forge_tuning\": 1",
                "\"forge_tuning\": 2",
                "forge_tuning: 2 is not 1, the version that this forge reads",
            ),
            ("\"forge_tuning\": 1", "\"tuning\": 1", "forge_tuning: null is not 1, the version that this forge reads"),
            ("\"geometries\": [", "\"shapes\": [", "geometries: not a list"),
            ("Q8_0", "Q9_0", "geometries[0].format: unknown"),
            ("512", "-1", "geometries[0].rows: not a whole number above 0"),
            ("\"cols\"", "\"columns\"", "geometries[0].cols: not a whole number above 0"),
            ("\"simdgroups\": 8", "\"simdgroups\": 5", "geometries[0].geometry.simdgroups: 5 is not 1, 2, 4, 8 or 16"),
            ("\"split\": 1", "\"split\": 8", "geometries[0].geometry.split: 8 is not small enough"),
            ("\"split\": 1", "\"split\": 1.5", "geometries[0].geometry.split: not a whole number above 0"),
            (entry, &format!("{entry}, {entry}"), "geometries[1]: Q8_0 [512, 256] for the second time"),
            ("{", "", "at line 1 column"),
        ] {
            assert!(GOOD.contains(right), "{right}");
            let found = parse(&GOOD.replacen(right, wrong, 1)).expect_err(wrong);
            assert!(found.contains(message), "{wrong}: {found}");
        }
    }
}
