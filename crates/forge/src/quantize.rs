//! The report of `forge gen --quantize`: what each matrix became, and how far it is from what it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forge_formats::{Deviation, Format};
use forge_frontend::Graph;
use forge_frontend::graph::{Source, WeightId};
use forge_plan::quantize::Kept;

/// One line of the table.
struct Line {
    cells: [String; 6],
    note: Option<String>,
}

/// The table, one line a matrix, with totals below it. `kept` are the matrices that were not converted to `to`.
pub fn report(
    graph: &Graph,
    to: Format,
    deviations: &BTreeMap<WeightId, Deviation>,
    kept: &[(WeightId, Kept)],
) -> String {
    let mut lines = vec![Line {
        cells: ["tensor", "shape", "from", "to", "relative RMS error", "max abs error"].map(str::to_owned),
        note: None,
    }];
    let (mut total, mut worst) = (Deviation::default(), None::<(f64, &str)>);
    for (id, weight) in graph.weights.iter().enumerate() {
        let kept = kept.iter().find(|(kept, _)| *kept == id).map(|(_, reason)| reason);
        let (from, deviation) = match (&weight.source, deviations.get(&id)) {
            (Source::Quantize { from, .. }, Some(deviation)) => (*from, Some(deviation)),
            _ if kept.is_some() => (weight.format, None),
            _ => continue,
        };
        let [relative, largest] = deviation.map_or([const { String::new() }; 2], measures);
        if let Some(deviation) = deviation {
            total.merge(deviation);
            if worst.is_none_or(|(error, _)| deviation.relative_rms() > error) {
                worst = Some((deviation.relative_rms(), &weight.tensor));
            }
        }
        let shape = format!("[{}, {}]", weight.rows, weight.cols);
        let cells = [weight.tensor.clone(), shape, from.to_string(), weight.format.to_string(), relative, largest];
        lines.push(Line { cells, note: kept.map(|reason| format!("stays: {reason}")) });
    }
    let mut text = table(&lines);
    let [relative, largest] = measures(&total);
    let (converted, kept) = (deviations.len(), kept.len());
    let _ = write!(text, "\n{converted} matrices quantised to {to}");
    if kept > 0 {
        let _ = write!(text, ", {kept} stay as they are");
    }
    let _ = writeln!(text, ": relative RMS error {relative} over all weights, max abs error {largest}");
    if let Some((error, tensor)) = worst {
        let _ = writeln!(text, "largest relative RMS error of a matrix: {:.3}% in {tensor}", 100.0 * error);
    }
    text
}

fn measures(deviation: &Deviation) -> [String; 2] {
    [format!("{:.3}%", 100.0 * deviation.relative_rms()), format!("{:.3e}", deviation.max_abs())]
}

/// Lines with their cells below one another, figures to the right.
fn table(lines: &[Line]) -> String {
    let width = |column: usize| lines.iter().map(|line| line.cells[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for Line { cells, note } in lines {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            let _ = if column < 4 { write!(line, "{gap}{cell:width$}") } else { write!(line, "{gap}{cell:>width$}") };
        }
        if let Some(note) = note {
            line.truncate(line.trim_end().len());
            line.push_str("  ");
            line.push_str(note);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
