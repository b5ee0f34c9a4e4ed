//! Tables for a terminal.

/// Rows of cells below one another, two spaces apart: the first `left` columns to the left, the others, which hold
/// figures, to the right. No line ends in spaces.
pub fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]], left: usize) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; COLUMNS] = std::array::from_fn(width);
    let cell = |(column, (cell, width)): (usize, (&String, usize))| {
        if column < left { format!("{cell:width$}") } else { format!("{cell:>width$}") }
    };
    let line = |row: &[String; COLUMNS]| row.iter().zip(widths).enumerate().map(cell).collect::<Vec<_>>().join("  ");
    rows.iter().map(|row| line(row).trim_end().to_owned()).collect()
}
