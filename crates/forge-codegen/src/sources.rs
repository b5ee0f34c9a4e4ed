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
    with_needs(&format!("gemv_{format}"))
}

/// The source of a way to store keys and values, after what it needs.
pub(crate) fn of_cache(cache: CacheType) -> Vec<&'static str> {
    with_needs(&format!("kv_{}", cache.name()))
}

/// The source of this name and those that it needs, each after what it needs itself.
pub(crate) fn with_needs(name: &str) -> Vec<&'static str> {
    let mut list = Vec::new();
    collect(name, &mut list);
    list
}

/// The source of this name: a file, or a table of a grid, `points_<format>` or `sums_<format>`.
fn named(name: &str) -> Option<&'static str> {
    static TABLES: LazyLock<Vec<(String, String)>> =
        LazyLock::new(|| GRIDS.into_iter().map(points).chain(GRIDS.into_iter().filter(is_ternary).map(sums)).collect());
    let table = || TABLES.iter().find(|(known, _)| *known == name).map(|(_, text)| text.as_str());
    MSL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).or_else(table)
}

/// Whether a grid's coordinates are -1, 0 and 1.
fn is_ternary(grid: &&Grid) -> bool {
    grid.levels == [-1, 0, 1]
}

/// A grid's table: a point's coordinates as the bytes of a word, or, where they are -1, 0 and 1, as the grid's codes of 2 bits, pair p at bit
/// 2 p of a half word's bytes.
fn points(grid: &Grid) -> (String, String) {
    let packed = is_ternary(&grid);
    let (element, stored) = match (packed, grid.width()) {
        (true, _) => ("ushort", "pairs of codes"),
        (false, 4) => ("uint", "bytes"),
        (false, _) => ("ulong", "bytes"),
    };
    let digits = if packed { 4 } else { 2 * grid.width() };
    let points = (0..grid.points()).map(|point| {
        let word = (0..grid.width()).fold(0_u64, |word, i| {
            let (bits, place) = if packed {
                (u64::from(grid.codes(point) >> (2 * i) & 3), i / 2 * 2 + i % 2 * 8)
            } else {
                (u64::from(grid.coordinate(point, i).cast_unsigned()), 8 * i)
            };
            word | bits << place
        });
        format!("{word:#0width$x}", width = digits + 2)
    });
    let comment = format!("points of {} coordinates, as {stored}", grid.width());
    table(grid, "points", &comment, element, points)
}

/// A ternary grid's table of entries in tables of sums: a point's first three coordinates as a number in base 3 from bit 7 on, the next three
/// from bit 0 on, the last two from bit 12 on.
fn sums(grid: &Grid) -> (String, String) {
    let points = (0..grid.points()).map(|point| {
        let entry = (0..grid.width()).fold(0, |word, i| {
            let digit = grid.codes(point) >> (2 * i) & 3;
            word + ((digit * 3_u16.pow(i as u32 % 3)) << [7, 0, 12][i / 3])
        });
        format!("{entry:#06x}")
    });
    let comment = "as entries of tables of sums of three, three and two coordinates, at bits 7, 0 and 12";
    table(grid, "sums", comment, "ushort", points)
}

/// A table's name and text, with a number a point.
fn table(
    grid: &Grid,
    kind: &str,
    comment: &str,
    element: &str,
    points: impl Iterator<Item = String>,
) -> (String, String) {
    let name = format!("{}{}_{}", grid.name[..1].to_uppercase(), &grid.name[1..], kind.to_uppercase());
    let (of, count) = (grid.name.to_uppercase(), grid.points());
    let mut text = format!("// The grid of {of}: {comment}.\nconstant {element} {name}[{count}] = {{\n");
    for line in wrap(points, 112) {
        text += &format!("    {line}\n");
    }
    (format!("{kind}_{}", grid.name), text + "};\n")
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
            let once = ["gemv_packed<Shared<", "gemv_floats<"];
            let decodes_once = sources.last().is_some_and(|text| once.iter().any(|call| text.contains(call)));
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
