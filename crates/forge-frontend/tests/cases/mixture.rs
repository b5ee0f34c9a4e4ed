//! Mixtures of experts for the interpreter: by sorting, and expert by expert.

use forge_frontend::graph::{GroupScore, Routing, Scores};

/// The weight of every expert, 0 where it is not chosen.
pub fn weights(logits: &[f32], bias: Option<&[f32]>, routing: &Routing) -> Vec<f32> {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = logits.iter().map(|logit| (logit - largest).exp()).sum();
    let score = |logit: &f32| match routing.scores {
        Scores::Softmax => (logit - largest).exp() / sum,
        // Their sum over the chosen ones is taken below.
        Scores::SoftmaxOfChosen => (logit - largest).exp(),
        Scores::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
    };
    let scores: Vec<f32> = logits.iter().map(score).collect();
    let mut keys: Vec<(usize, f32)> = scores
        .iter()
        .enumerate()
        .map(|(expert, score)| (expert, score + bias.map_or(0.0, |bias| bias[expert])))
        .collect();
    let best_first = |list: &mut Vec<(usize, f32)>| list.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if let Some(groups) = routing.groups {
        let each = routing.experts / groups.count;
        let judge = |(group, members): (usize, &[(usize, f32)])| {
            let mut members = members.to_vec();
            best_first(&mut members);
            let second = members.get(1).map_or(0.0, |member| member.1);
            (group, members[0].1 + if groups.judged_by == GroupScore::BestTwo { second } else { 0.0 })
        };
        let mut judged: Vec<_> = keys.chunks(each).enumerate().map(judge).collect();
        best_first(&mut judged);
        judged.truncate(groups.chosen);
        keys.retain(|(expert, _)| judged.iter().any(|(group, _)| *group == expert / each));
    }
    best_first(&mut keys);
    keys.truncate(routing.chosen);
    let sum: f32 = keys.iter().map(|(expert, _)| scores[*expert]).sum();
    let mut out = vec![0.0; routing.experts];
    for (expert, _) in keys {
        let divisor = match (routing.scores, routing.normalised) {
            (Scores::SoftmaxOfChosen, _) => sum,
            (_, Some(added)) => sum + added,
            (_, None) => 1.0,
        };
        out[expert] = scores[expert] / divisor * routing.scale;
    }
    out
}

/// The weighted sum of what the experts make of one row; `stacks` are gate, up and down rows, expert by expert, and so are
/// their biases.
pub fn experts(
    row: &[f32],
    weights: &[f32],
    stacks: [&Vec<Vec<f32>>; 3],
    biases: Option<[&[f32]; 3]>,
    experts: usize,
    gated: impl Fn(f32, f32) -> f32,
) -> Vec<f32> {
    let dot = |line: &Vec<f32>, row: &[f32]| line.iter().zip(row).map(|(w, x)| w * x).sum::<f32>();
    // Of expert `index` what the stack `part` makes of `input`.
    let product = |part: usize, index: usize, input: &[f32]| -> Vec<f32> {
        let rows = stacks[part].len() / experts;
        let own = index * rows..(index + 1) * rows;
        own.map(|at| dot(&stacks[part][at], input) + biases.map_or(0.0, |biases| biases[part][at])).collect()
    };
    let mut out = vec![0.0; row.len()];
    for (index, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight != 0.0) {
        let (gate, up) = (product(0, index, row), product(1, index, row));
        let hidden: Vec<f32> = gate.iter().zip(&up).map(|(&gate, &up)| gated(gate, up)).collect();
        out.iter_mut().zip(product(2, index, &hidden)).for_each(|(out, value)| *out += weight * value);
    }
    out
}
