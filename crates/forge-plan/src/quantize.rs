//! Requantisation: a pass over the graph that gives float matrices another format.
//!
//! Decides which matrices are converted and why the others are not; the packer converts. Everything after this pass sees a
//! checkpoint that is stored in the new formats.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use forge_formats::Format;
use forge_frontend::Graph;
use forge_frontend::graph::{Layer, Node, Op, Source, ValueId, Weight, WeightId};

use crate::PlanError;

/// Why a matrix keeps its format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It has been quantised already: a second time would add a second error to the first.
    Quantized,
    /// It chooses experts: an error there takes others.
    Router,
    /// A row is no whole number of blocks.
    Width {
        /// Weights per row.
        cols: usize,
        /// Weights per block.
        block: usize,
    },
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("chooses experts"),
            Self::Quantized => f.write_str("is quantised already"),
            Self::Width { cols, block } => {
                write!(f, "rows of {cols} weights are no whole number of blocks of {block}")
            }
        }
    }
}

/// Which format each matrix gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// That of matrices of which the rest says nothing.
    pub format: Format,
    /// Those of some roles: `ffn_down`, `token_embd`.
    pub roles: Vec<(String, Format)>,
    /// Those of single matrices, before their roles'.
    pub matrices: BTreeMap<WeightId, Format>,
}

impl Recipe {
    /// One format for all.
    pub fn all(format: Format) -> Self {
        Self { format, roles: Vec::new(), matrices: BTreeMap::new() }
    }

    fn format(&self, id: WeightId, weight: &Weight) -> Format {
        let of_role = || self.roles.iter().find(|(role, _)| *role == weight.role).map(|(_, format)| *format);
        self.matrices.get(&id).copied().or_else(of_role).unwrap_or(self.format)
    }
}

/// Turns every F32, F16 and BF16 matrix of the graph into one that is stored as the recipe says. Vectors (norms, biases) keep
/// their format. Returns the matrices that do, too, each with the reason.
///
/// # Errors
/// No matrix to convert; a role that no matrix has.
pub fn quantize(graph: &mut Graph, recipe: &Recipe) -> Result<Vec<(WeightId, Kept)>, PlanError> {
    let roles: BTreeSet<String> =
        graph.weights.iter().filter(|weight| weight.rows > 1).map(|weight| weight.role.clone()).collect();
    if let Some((role, _)) = recipe.roles.iter().find(|(role, _)| !roles.contains(role)) {
        let roles = roles.into_iter().collect::<Vec<_>>().join(", ");
        return Err(PlanError::NoSuchRole { role: role.clone(), roles });
    }
    let mut kept = Vec::new();
    let mut converted = 0;
    let mut formats = Vec::new();
    let routers = routers(graph);
    for (id, weight) in graph.weights.iter_mut().enumerate().filter(|(_, weight)| weight.rows > 1) {
        let from = weight.format;
        if !formats.contains(&from) {
            formats.push(from);
        }
        let target = recipe.format(id, weight);
        if let Some(reason) = reason_to_keep(weight, routers.contains(&id), target) {
            kept.push((id, reason));
            continue;
        }
        let quantized = |piece: &Source| match piece {
            floats if is_of_floats(floats) => Source::Quantize { floats: Box::new(floats.clone()), from },
            other => other.clone(),
        };
        weight.source = match &weight.source {
            Source::Stack(pieces) => Source::Stack(pieces.iter().map(quantized).collect()),
            source => quantized(source),
        };
        weight.format = target;
        converted += 1;
    }
    if converted == 0 {
        let formats: Vec<String> = formats.iter().map(Format::to_string).collect();
        return Err(PlanError::NothingToQuantize { target: recipe.format, formats: formats.join(", ") });
    }
    Ok(kept)
}

fn reason_to_keep(weight: &Weight, router: bool, target: Format) -> Option<Kept> {
    let floats = weight.format.is_float() && weight.source.pieces().iter().all(is_of_floats);
    let block = target.block_elements();
    match () {
        () if !floats => Some(Kept::Quantized),
        () if router => Some(Kept::Router),
        () if !weight.cols.is_multiple_of(block) => Some(Kept::Width { cols: weight.cols, block }),
        () => None,
    }
}

/// A format that a matrix may get, and what is lost with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The matrix.
    pub matrix: WeightId,
    /// The format.
    pub format: Format,
    /// Bits of the whole matrix in it.
    pub bits: u64,
    /// Square of the error, by that of the matrix, as often as [`counts`] says; 0 for its own format.
    pub error: f64,
}

/// The matrices that can be converted to some format of a list, with those that they can.
pub fn convertible(graph: &Graph, formats: &[Format]) -> Vec<(WeightId, Vec<Format>)> {
    let routers = routers(graph);
    let of = |(id, weight): (WeightId, &Weight)| {
        let fits = |format: &Format| reason_to_keep(weight, routers.contains(&id), *format).is_none();
        let formats: Vec<Format> = formats.iter().copied().filter(fits).collect();
        (weight.rows > 1 && !formats.is_empty()).then_some((id, formats))
    };
    graph.weights.iter().enumerate().filter_map(of).collect()
}

/// How much an error in a matrix counts. One in the head is one of all logits. One in a layer reaches them with its branch's share of the
/// residual stream, which two branches a layer add to: so the head counts as much as there are branches.
pub fn counts(graph: &Graph, id: WeightId) -> f64 {
    if graph.head.weights.contains(&id) { 2.0 * graph.layers.len() as f64 } else { 1.0 }
}

/// Bits of the matrices that are not converted, and weights of all matrices.
pub fn around(graph: &Graph, converted: &[(WeightId, Vec<Format>)]) -> (u64, u64) {
    let matrices = || graph.weights.iter().enumerate().filter(|(_, weight)| weight.rows > 1);
    let others = matrices().filter(|(id, _)| !converted.iter().any(|(known, _)| known == id));
    let bits = others.map(|(_, weight)| stored_bits(weight, weight.format)).sum();
    (bits, matrices().map(|(_, weight)| weight.rows as u64 * weight.cols as u64).sum())
}

/// Chooses a candidate for each matrix so that these and `others` have at most `most` bits and the sum of errors is small: from the
/// smallest of each on, the step that lessens the error by most for its bits, until none fits.
///
/// # Errors
/// The smallest candidates have more bits; the error has how many.
pub fn choose(candidates: &[Candidate], others: u64, most: u64) -> Result<BTreeMap<WeightId, Format>, u64> {
    let mut lists: BTreeMap<WeightId, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        lists.entry(candidate.matrix).or_default().push(*candidate);
    }
    for list in lists.values_mut() {
        list.sort_by(|a, b| a.bits.cmp(&b.bits).then(a.error.total_cmp(&b.error)));
        *list = hull(list);
    }
    let mut total = others + lists.values().map(|list| list[0].bits).sum::<u64>();
    if total > most {
        return Err(total);
    }
    // Steps of a hull come in the order of what they are worth, so taking the best of all is taking the best next ones.
    let mut steps: Vec<(f64, WeightId, usize)> = Vec::new();
    for (id, list) in &lists {
        let worth = |pair: &[Candidate]| (pair[0].error - pair[1].error) / (pair[1].bits - pair[0].bits) as f64;
        steps.extend(list.windows(2).enumerate().map(|(step, pair)| (worth(pair), *id, step)));
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut chosen: BTreeMap<WeightId, usize> = lists.keys().map(|id| (*id, 0)).collect();
    for (_, id, step) in steps {
        let (list, at) = (&lists[&id], chosen.get_mut(&id).expect("a list for each"));
        let more = list[step + 1].bits - list[step].bits;
        // A step that does not fit leaves room for smaller ones of other matrices, not for the ones after it.
        if *at == step && total + more <= most {
            *at += 1;
            total += more;
        }
    }
    Ok(chosen.into_iter().map(|(id, at)| (id, lists[&id][at].format)).collect())
}

/// Of candidates in the order of their bits, those on the lower convex hull of errors.
fn hull(sorted: &[Candidate]) -> Vec<Candidate> {
    let mut hull: Vec<Candidate> = Vec::new();
    for &next in sorted {
        if hull.last().is_some_and(|last| next.error >= last.error || next.bits == last.bits) {
            continue;
        }
        while let [.., first, middle] = hull[..] {
            let slope = |a: &Candidate, b: &Candidate| (a.error - b.error) / (b.bits - a.bits) as f64;
            if slope(&first, &middle) > slope(&middle, &next) {
                break;
            }
            hull.pop();
        }
        hull.push(next);
    }
    hull
}

/// Bits of a matrix in a format, with those of its rows' factors where it has any.
///
/// # Panics
/// Rows that are no whole number of blocks.
pub fn stored_bits(weight: &Weight, format: Format) -> u64 {
    let factor = if format.has_row_factors() { 4 } else { 0 };
    8 * weight.rows as u64 * (factor + format.row_bytes(weight.cols).expect("whole blocks")) as u64
}

/// Whether rows of a float format are in the checkpoint.
fn is_of_floats(source: &Source) -> bool {
    matches!(source, Source::Rows(_) | Source::Strided { .. })
}

/// The matrices whose results choose experts.
fn routers(graph: &Graph) -> Vec<WeightId> {
    let of_layer = |layer: &Layer| {
        let nodes = &graph.blocks[layer.block].nodes;
        let logits = |node: &Node| matches!(node.op, Op::Route { .. }).then(|| node.inputs[0]);
        let logits: Vec<ValueId> = nodes.iter().filter_map(logits).collect();
        let router = |node: &Node| {
            let Op::Linear { weight, .. } = node.op else { return None };
            node.output.is_some_and(|value| logits.contains(&value)).then(|| layer.weights[weight])
        };
        nodes.iter().filter_map(router).collect::<Vec<_>>()
    };
    graph.layers.iter().flat_map(of_layer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(matrix: WeightId, bits: u64, error: f64, format: Format) -> Candidate {
        Candidate { matrix, format, bits, error }
    }

    /// Two matrices of 256 weights; what is not on the hull is never chosen.
    fn candidates() -> Vec<Candidate> {
        vec![
            candidate(0, 1152, 0.010, Format::Q4K),
            candidate(0, 1408, 0.009, Format::Q5K),
            candidate(0, 1680, 0.001, Format::Q6K),
            candidate(0, 2176, 0.0001, Format::Q8_0),
            candidate(1, 1152, 0.100, Format::Q4K),
            candidate(1, 1408, 0.020, Format::Q5K),
            candidate(1, 1680, 0.010, Format::Q6K),
        ]
    }

    #[test]
    fn bits_go_where_they_lessen_the_error_most() {
        let chosen = |bits: u64| choose(&candidates(), 100, 100 + bits).map(|chosen| [chosen[&0], chosen[&1]]);
        assert_eq!(chosen(2303), Err(2404));
        assert_eq!(chosen(2304), Ok([Format::Q4K, Format::Q4K]));
        assert_eq!(chosen(2560), Ok([Format::Q4K, Format::Q5K]));
        assert_eq!(chosen(2832), Ok([Format::Q4K, Format::Q6K]));
        assert_eq!(chosen(3360), Ok([Format::Q6K, Format::Q6K]));
        assert_eq!(chosen(9999), Ok([Format::Q8_0, Format::Q6K]));
    }

    #[test]
    fn sizes_are_at_most_those_asked_for_and_errors_fall_with_them() {
        let of = |matrix, format| {
            *candidates().iter().find(|known| known.matrix == matrix && known.format == format).expect("a candidate")
        };
        let mut last = f64::INFINITY;
        for most in (2304..5000).step_by(7) {
            let chosen = choose(&candidates(), 0, most).expect("the smallest fit");
            let picked: Vec<Candidate> = chosen.into_iter().map(|(matrix, format)| of(matrix, format)).collect();
            assert!(picked.iter().map(|c| c.bits).sum::<u64>() <= most, "{most}: {picked:?}");
            let error = picked.iter().map(|c| c.error).sum::<f64>();
            assert!(error <= last + 1e-12, "{most}: {error}, {last} before");
            last = error;
        }
    }
}
