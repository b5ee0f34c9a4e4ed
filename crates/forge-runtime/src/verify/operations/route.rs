//! The choice of experts, and the order in which they run: exact.

use super::super::compare::Comparison;
use super::super::error::{FEW, ROUNDING, sum_error};
use super::super::run::{Case, Input, Run};
use super::super::table::{GroupScore, Role, Routing, Scores, SharedWeight, SortExperts};
use super::Reference;

/// Experts of each row, some with many rows and some with none.
pub(super) fn some_experts(rows: usize, experts: usize, chosen: usize) -> Vec<u32> {
    (0..rows).flat_map(|row| (0..chosen).map(move |place| ((row * row + place) % experts) as u32)).collect()
}

/// Pairs of a row and a place in its choice, in order of the experts.
pub(super) fn in_order(ids: &[u32]) -> Vec<u32> {
    let mut pairs: Vec<u32> = (0..ids.len() as u32).collect();
    pairs.sort_by_key(|&pair| (ids[pair as usize], pair));
    pairs
}

/// Tiles of one expert each, of pairs in order: expert, first pair, pairs.
pub(super) fn tiles(ids: &[u32], pairs: &[u32], tile: usize) -> Vec<u32> {
    let mut list = Vec::new();
    let mut first = 0;
    for run in pairs.chunk_by(|a, b| ids[*a as usize] == ids[*b as usize]) {
        for part in run.chunks(tile) {
            list.extend([ids[part[0] as usize], first, part.len() as u32]);
            first += part.len() as u32;
        }
    }
    list
}

/// What experts are chosen by, and how far a kernel's may be from it.
struct Keys {
    scores: Vec<f64>,
    keys: Vec<f64>,
    bound: f64,
}

fn keys(routing: &Routing, logits: &[f32], bias: &[f32]) -> Keys {
    let exact = routing.groups.is_none() && bias.is_empty() && routing.scores != Scores::Sigmoid;
    let largest = logits.iter().fold(f64::MIN, |most, &logit| most.max(logit.into()));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    let score = |&logit: &f32| {
        let logit = f64::from(logit);
        match routing.scores {
            Scores::Softmax => (logit - largest).exp() / sum,
            Scores::SoftmaxOfChosen => logit,
            Scores::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
        }
    };
    let scores: Vec<f64> = logits.iter().map(score).collect();
    if exact {
        // Softmax keeps the order of the logits.
        return Keys { scores, keys: logits.iter().map(|&logit| logit.into()).collect(), bound: 0.0 };
    }
    let biased = |(expert, &score): (usize, &f64)| score + bias.get(expert).map_or(0.0, |&bias| bias.into());
    let mut keys: Vec<f64> = scores.iter().enumerate().map(biased).collect();
    if let Some(groups) = routing.groups {
        let each = routing.experts / groups.count;
        let judge = |group: &[f64]| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            let judged = match groups.judged_by {
                GroupScore::Best => 1,
                GroupScore::BestTwo => 2,
            };
            sorted.iter().take(judged).sum::<f64>()
        };
        let judged: Vec<f64> = keys.chunks(each).map(judge).collect();
        let kept = best(&judged, groups.chosen);
        for (expert, key) in keys.iter_mut().enumerate() {
            if !kept.contains(&(expert / each)) {
                *key = f64::NEG_INFINITY;
            }
        }
    }
    let size = keys.iter().filter(|key| key.is_finite()).fold(0.0_f64, |most, key| most.max(key.abs()));
    Keys { scores, keys, bound: 4.0 * FEW * size }
}

/// The largest of some numbers, the first of equal ones first.
fn best(numbers: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[b].total_cmp(&numbers[a]).then(a.cmp(&b)));
    order.truncate(count);
    order
}

/// Compares the experts and weights that a kernel left; gives the experts.
pub(super) fn check(routing: &Routing, shared: Option<SharedWeight>, run: &Run<'_>, out: &mut Comparison) -> Vec<u32> {
    let (chosen, rows) = (routing.chosen, run.case.rows);
    let stride = chosen + usize::from(shared.is_some());
    let logits = run.given(Role::RouterLogits);
    let bias = if run.has(Role::SelectionBias) { run.given(Role::SelectionBias) } else { Vec::new() };
    let factors = if run.has(Role::ExpertFactors) { run.given(Role::ExpertFactors) } else { Vec::new() };
    let (found, weights) = (run.words_left(Role::Experts), run.left(Role::ExpertWeights));
    for (row, logits) in logits.chunks_exact(logits.len() / rows).enumerate() {
        let gate = f64::from(logits.get(routing.experts).copied().unwrap_or_default());
        let logits = &logits[..routing.experts];
        let Keys { scores, keys, bound } = keys(routing, logits, &bias);
        let expected = best(&keys, chosen);
        let own = &found[row * chosen..][..chosen];
        for (place, (&found, &expected)) in own.iter().zip(&expected).enumerate() {
            let at = row * chosen + place;
            let twice = own[..place].contains(&found);
            match keys.get(found as usize) {
                // What is as good as the expected one to the kernel's arithmetic, and not taken yet.
                Some(&key) if bound > 0.0 && !twice => out.number(Role::Experts, at, key, keys[expected], bound),
                _ => out.exact(Role::Experts, at, found, expected as u32),
            }
        }
        let score = |&expert: &u32| scores.get(expert as usize).copied().unwrap_or(f64::NAN);
        let mut parts: Vec<f64> = own.iter().map(score).collect();
        if routing.scores == Scores::SoftmaxOfChosen {
            let largest = parts.iter().fold(f64::MIN, |most, part| most.max(*part));
            parts.iter_mut().for_each(|part| *part = (*part - largest).exp());
        }
        let sum: f64 = parts.iter().sum();
        let divisor = match (routing.scores, routing.normalised) {
            (Scores::SoftmaxOfChosen, _) => sum,
            (Scores::Softmax | Scores::Sigmoid, Some(added)) => sum + f64::from(added),
            (Scores::Softmax | Scores::Sigmoid, None) => 1.0,
        };
        // A logit's rounding in a difference becomes a relative error of its exponential.
        let size = logits.iter().fold(1.0_f64, |most, &logit| most.max(f64::from(logit).abs()));
        let error = 2.0 * FEW + 4.0 * ROUNDING * size + sum_error(routing.experts);
        for (place, part) in parts.iter().enumerate() {
            let at = row * stride + place;
            let factor = factors.get(own[place] as usize).map_or(1.0, |&factor| factor.into());
            let expected = part / divisor * f64::from(routing.scale) * factor;
            out.number(Role::ExpertWeights, at, weights[at].into(), expected, expected.abs() * error);
        }
        if let Some(shared) = shared {
            let at = row * stride + chosen;
            let expected = match shared {
                SharedWeight::One => 1.0,
                SharedWeight::Gate => 1.0 / (1.0 + (-gate).exp()),
            };
            out.number(Role::ExpertWeights, at, weights[at].into(), expected, 2.0 * FEW * expected);
        }
    }
    found
}

/// See [`Operation::Route`](super::Operation::Route).
pub(super) struct Route {
    pub routing: Routing,
    pub shared: Option<SharedWeight>,
}

/// What a router may leave.
pub(super) const LOGITS: (Role, Input) = (Role::RouterLogits, Input::Between(-4.0, 4.0));

impl Reference for Route {
    fn describe(&self) -> String {
        format!("{} of {} experts", self.routing.chosen, self.routing.experts)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![LOGITS]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        check(&self.routing, self.shared, run, out);
    }
}

impl Reference for SortExperts {
    fn describe(&self) -> String {
        format!("{} of {} experts, tiles of {}", self.chosen, self.experts, self.tile)
    }

    fn inputs(&self, case: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Experts, Input::Words(some_experts(case.rows, self.experts, self.chosen)))]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let ids = run.words_given(Role::Experts);
        let pairs = in_order(&ids);
        let tiles = tiles(&ids, &pairs, self.tile);
        let [up, down] = self.columns.map(|columns| columns as u32);
        let count = tiles.len() as u32 / 3;
        let threadgroups = vec![up, count, 1, down, count, 1];
        for (role, expected) in [(Role::Pairs, pairs), (Role::Tiles, tiles), (Role::Threadgroups, threadgroups)] {
            let found = run.words_left(role);
            for (at, &expected) in expected.iter().enumerate() {
                out.exact(role, at, found[at], expected);
            }
        }
    }
}
