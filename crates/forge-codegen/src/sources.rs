//! The Metal sources of weight formats, `templates/msl/gemv_<format>.metal`, and of ways to store keys and values,
//! `kv_<type>.metal`, after the files that the first line names.

use forge_spec::CacheType;

use std::sync::LazyLock;

use forge_spec::grids::{GRIDS, Grid};

use crate::naming::wrap;

include!(concat!(env!("OUT_DIR"), "/msl.rs"));

/// How a source begins that needs others before it: their names follow, with commas.
const NEEDS: &str = "// needs: ";

/// The source named `gemv_<format>` and those that it needs, each after what it needs itself, without the lines that say
/// so. Empty for a format that has none.
pub(crate) fn of_format(format: &str) -> Vec<&'static str> {
    let mut list = Vec::new();
    collect(&format!("gemv_{format}"), &mut list);
    list
}

/// The source of a way to store keys and values, after what it needs.
pub(crate) fn of_cache(cache: CacheType) -> Vec<&'static str> {
    let mut list = Vec::new();
    collect(&format!("kv_{}", cache.name()), &mut list);
    list
}

/// The source of this name: a file, or `points_<format>`, the table of a grid.
pub(crate) fn named(name: &str) -> Option<&'static str> {
    static TABLES: LazyLock<Vec<(String, String)>> = LazyLock::new(|| GRIDS.into_iter().map(points).collect());
    let table = || TABLES.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str());
    MSL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).or_else(table)
}

/// A grid's table: a point's coordinates as the bytes of a word, or, where some are negative, as the grid's codes of 2 bits, pair p at bit
/// 2 p of the word's halves.
fn points(grid: &Grid) -> (String, String) {
    let packed = grid.levels.iter().any(|level| *level < 0);
    let (element, stored) = match (packed, grid.width()) {
        (true, _) => ("uint", "pairs of codes"),
        (false, 4) => ("uint", "bytes"),
        (false, _) => ("ulong", "bytes"),
    };
    let digits = if packed { 6 } else { 2 * grid.width() };
    let points = (0..grid.points()).map(|point| {
        let word = (0..grid.width()).fold(0_u64, |word, i| {
            let (bits, place) = if packed {
                (u64::from(grid.codes(point) >> (2 * i) & 3), i / 2 * 2 + i % 2 * 16)
            } else {
                (u64::from(grid.coordinate(point, i).cast_unsigned()), 8 * i)
            };
            word | bits << place
        });
        format!("{word:#0width$x}", width = digits + 2)
    });
    let name = format!("points_{}", grid.name);
    let constant = format!("{}{}_POINTS", grid.name[..1].to_uppercase(), &grid.name[1..]);
    let mut text = format!(
        "// The grid of {}: points of {} coordinates, as {stored}.\nconstant {element} {constant}[{}] = {{\n",
        grid.name.to_uppercase(),
        grid.width(),
        grid.points()
    );
    for line in wrap(points, 112) {
        text += &format!("    {line}\n");
    }
    (name, text + "};\n")
}

fn collect(name: &str, list: &mut Vec<&'static str>) {
    let Some(text) = named(name) else { return };
    let own = match text.strip_prefix(NEEDS).and_then(|rest| rest.split_once('\n')) {
        Some((needed, own)) => {
            needed.split(", ").for_each(|needed| collect(needed, list));
            own
        }
        None => text,
    };
    if !list.contains(&own) {
        list.push(own);
    }
}

#[cfg(test)]
mod tests {
    use forge_formats::{Format, Pairs};
    use forge_plan::format_name;

    use super::*;

    #[test]
    fn every_format_has_a_source_and_every_source_what_it_needs() {
        for format in Format::all() {
            let name = match format {
                Format::Affine { .. } => "affine".to_owned(),
                other => format_name(other),
            };
            let sources = of_format(&name);
            assert!(sources.last().is_some_and(|text| text.contains("gemv_")), "{format}");
            assert!(sources.iter().all(|text| !text.contains(NEEDS)), "{format}");
            let decodes_once = sources.last().is_some_and(|text| text.contains("gemv_packed<Shared<"));
            assert_eq!(format.packed(Pairs::default()).decodes_once(), decodes_once, "{format}");
        }
        for (name, text) in MSL {
            let needed = text.strip_prefix(NEEDS).and_then(|rest| rest.split_once('\n'));
            for needed in needed.iter().flat_map(|(needed, _)| needed.split(", ")) {
                assert!(named(needed).is_some(), "{name} needs {needed}");
            }
        }
    }
}
