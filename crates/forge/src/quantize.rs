//! The report of `forge gen --quantize`: what each matrix became, and how far it is from what it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use forge_formats::Deviation;
use forge_frontend::Graph;
use forge_frontend::graph::{Source, WeightId};
use forge_plan::quantize::{Kept, stored_bits};

use crate::table;

/// The table, one line a matrix, with totals below it. `to` is what was asked for, `kept` are the matrices that were not converted.
pub fn report(
    graph: &Graph,
    to: &str,
    deviations: &BTreeMap<WeightId, Deviation>,
    kept: &[(WeightId, Kept)],
) -> String {
    let mut rows = vec![
        ["tensor", "shape", "from", "to", "bits a weight", "relative RMS error", "max abs error"].map(str::to_owned),
    ];
    let mut notes = vec![None];
    let (mut bits, mut elements) = (0, 0);
    let (mut total, mut worst) = (Deviation::default(), None::<(f64, &str)>);
    for (id, weight) in graph.weights.iter().enumerate() {
        let kept = kept.iter().find(|(kept, _)| *kept == id).map(|(_, reason)| reason);
        let (from, deviation) = match (&weight.source.pieces()[0], deviations.get(&id)) {
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
        let to = weight.format.to_string();
        let weights = weight.rows as u64 * weight.cols as u64;
        let own = stored_bits(weight, weight.format);
        bits += own;
        elements += weights;
        let size = format!("{:.3}", own as f64 / weights as f64);
        rows.push([weight.tensor.clone(), shape, from.to_string(), to, size, relative, largest]);
        notes.push(kept);
    }
    let mut text = String::new();
    for (line, note) in table::aligned(&rows, 4).into_iter().zip(notes) {
        let note = note.map_or_else(String::new, |reason| format!("  stays: {reason}"));
        let _ = writeln!(text, "{line}{note}");
    }
    let [relative, largest] = measures(&total);
    let (converted, kept) = (deviations.len(), kept.len());
    let _ = write!(text, "\n{converted} matrices quantised to {to}");
    if kept > 0 {
        let _ = write!(text, ", {kept} stay as they are");
    }
    let _ = writeln!(text, ": relative RMS error {relative} over all weights, max abs error {largest}");
    let _ = writeln!(text, "all matrices: {:.3} bits a weight", bits as f64 / elements.max(1) as f64);
    if let Some((error, tensor)) = worst {
        let _ = writeln!(text, "largest relative RMS error of a matrix: {:.3}% in {tensor}", 100.0 * error);
    }
    text
}

fn measures(deviation: &Deviation) -> [String; 2] {
    [format!("{:.3}%", 100.0 * deviation.relative_rms()), format!("{:.3e}", deviation.max_abs())]
}
