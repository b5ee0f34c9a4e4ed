//! Runs a graph in f32, the plainest way: the meaning of the operations, against which references are compared.

use super::{latent, recurrent};
use forge_formats::{AffineRow, Format, Pairs, Repacked, SourceRows, decode_affine, decode_apart, decode_row};
use forge_frontend::Checkpoint;
use forge_frontend::graph::{
    Activation, Attention, Block, Graph, LatentSpec, Op, Rope, RopePairing, Source, StateId, StateSpec, WeightId,
};

/// `[tokens, width]`.
pub type Rows = Vec<Vec<f32>>;

/// Keys and values of one state, `[positions, kv_heads * head_dim]` each. Recurrent states have none: a whole text runs at once.
#[derive(Default)]
struct Cache {
    keys: Rows,
    values: Rows,
}

/// Decoded weights, `[rows][cols]`.
struct Weights(Vec<Rows>);

/// Logits of every token, `[tokens, vocab]`.
pub fn logits(checkpoint: &Checkpoint, tokens: &[u32]) -> Rows {
    let graph = &checkpoint.graph;
    let weights = Weights((0..graph.weights.len()).map(|id| decode(checkpoint, id)).collect());
    let mut caches: Vec<Cache> = graph.states.iter().map(|_| Cache::default()).collect();
    let mut run = |block: &Block, ids: &[WeightId], states: &[StateId], inputs: Vec<Rows>| {
        run_block(graph, &weights, &mut caches, block, ids, states, inputs, tokens)
    };
    let (mut x, layer_inputs) = run(&graph.embed.block, &graph.embed.weights, &[], Vec::new());
    for (index, layer) in graph.layers.iter().enumerate() {
        let own = layer_inputs.as_ref().map(|rows| {
            map(rows, |row| row.chunks(row.len() / graph.layers.len()).nth(index).expect("a part of its own").to_vec())
        });
        let inputs = [x].into_iter().chain(own).collect();
        x = run(&graph.blocks[layer.block], &layer.weights, &layer.states, inputs).0;
    }
    run(&graph.head.block, &graph.head.weights, &[], vec![x]).0
}

fn decode(checkpoint: &Checkpoint, id: WeightId) -> Rows {
    let weight = &checkpoint.graph.weights[id];
    let pieces = weight.source.pieces();
    let rows = weight.rows / pieces.len();
    let row = |row: usize| {
        let mut out = vec![0.0; weight.cols];
        let (piece, row) = (&pieces[row / rows], row % rows);
        let (piece, factor) = match piece {
            Source::Factored { rows: piece, factors } => (&**piece, factors[row * factors.len() / rows]),
            other => (other, 1.0),
        };
        match piece {
            Source::Rows(range) => {
                let bytes = checkpoint.bytes(range);
                let row_bytes = bytes.len() / rows;
                decode_row(weight.format, &bytes[row * row_bytes..][..row_bytes], &mut out).expect("a row decodes");
                out.iter_mut().for_each(|value| *value *= factor);
            }
            Source::Affine { quants, scales, biases, scale_format } => {
                let part = |range| {
                    let bytes = checkpoint.bytes(range);
                    let row_bytes = bytes.len() / rows;
                    &bytes[row * row_bytes..][..row_bytes]
                };
                let (codes, scales, biases) = (part(quants), part(scales), part(biases));
                let affine = AffineRow {
                    format: weight.format,
                    codes,
                    scales,
                    biases,
                    scale_format: *scale_format,
                    zeros: false,
                };
                decode_affine(&affine, &mut out).expect("a row decodes");
            }
            Source::Repack { repack, parts, first_row } => {
                let parts: Vec<&[u8]> = parts.iter().map(|range| checkpoint.bytes(range)).collect();
                let mut made = Repacked::default();
                repack.rows(&parts, first_row + row..first_row + row + 1, &mut made).expect("a row is made");
                match made.source() {
                    SourceRows::Blocks(bytes) => decode_row(weight.format, bytes, &mut out).expect("a row decodes"),
                    SourceRows::Apart { codes, scales } => {
                        decode_apart(weight.format, codes, scales, 1.0, &mut out).expect("a row decodes");
                    }
                    SourceRows::Factored { .. } => unreachable!("nothing is repacked to such rows"),
                    SourceRows::Affine { codes, scales, biases } => {
                        let Pairs { bf16, zeros } = repack.pairs();
                        let scale_format = if bf16 { Format::BF16 } else { Format::F16 };
                        let row = AffineRow { format: weight.format, codes, scales, biases, scale_format, zeros };
                        decode_affine(&row, &mut out).expect("a row decodes");
                    }
                }
            }
            Source::Values(values) => out.clone_from(values),
            Source::Strided { elements, strides } => {
                let (bytes, size) = (checkpoint.bytes(elements), weight.format.block_bytes());
                for (col, value) in out.iter_mut().enumerate() {
                    let at = (strides.first + row * strides.row + col * strides.col) * size;
                    decode_row(weight.format, &bytes[at..at + size], std::slice::from_mut(value)).expect("a float");
                }
            }
            Source::Apart { codes, scales, first, step } => {
                let part = |range| {
                    let bytes = checkpoint.bytes(range);
                    let row_bytes = bytes.len() / (rows * step);
                    &bytes[(first + row * step) * row_bytes..][..row_bytes]
                };
                decode_apart(weight.format, part(codes), part(scales), factor, &mut out).expect("a row decodes");
            }
            Source::Quantize { .. } | Source::Factored { .. } | Source::Stack(_) => {
                unreachable!("neither quantised nor a stack within a stack")
            }
        }
        out.iter_mut().for_each(|value| *value = weight.element(*value));
        out
    };
    (0..weight.rows).map(row).collect()
}

#[expect(clippy::too_many_arguments, reason = "the interpreter's whole state")]
fn run_block(
    graph: &Graph,
    weights: &Weights,
    caches: &mut [Cache],
    block: &Block,
    ids: &[WeightId],
    states: &[StateId],
    inputs: Vec<Rows>,
    tokens: &[u32],
) -> (Rows, Option<Rows>) {
    let weight = |slot: usize| {
        let (slot, stored) = (&block.slots[slot], &graph.weights[ids[slot]]);
        assert_eq!((slot.rows, slot.cols), (stored.rows, stored.cols), "slot {}", slot.role);
        &weights.0[ids[block.slots.iter().position(|other| std::ptr::eq(other, slot)).expect("own slot")]]
    };
    let mut values: Vec<Option<Rows>> = vec![None; block.values.len()];
    assert_eq!(block.inputs, inputs.len());
    for (value, input) in values.iter_mut().zip(inputs) {
        *value = Some(input);
    }
    for node in &block.nodes {
        let input = |index: usize| values[node.inputs[index]].as_ref().expect("computed before it is used");
        let result: Rows = match &node.op {
            Op::Embedding { table, scale } => {
                let row = |&token: &u32| weight(*table)[token as usize].iter().map(|value| value * scale).collect();
                tokens.iter().map(row).collect()
            }
            Op::RmsNorm { gamma, eps } => map(input(0), |row| rms_norm(row, Some(&weight(*gamma)[0]), *eps)),
            Op::LayerNorm { gamma, beta, eps } => {
                let (gamma, beta) = (&weight(*gamma)[0], beta.map(|beta| &weight(beta)[0]));
                map(input(0), |row| layer_norm(row, gamma, beta, *eps))
            }
            Op::HeadNorm { gamma, head_dim, eps, .. } => {
                let gamma = gamma.map(|gamma| &weight(gamma)[0][..]);
                map(input(0), |row| row.chunks(*head_dim).flat_map(|head| rms_norm(head, gamma, *eps)).collect())
            }
            Op::Linear { weight: matrix, bias } => {
                let bias = bias.map(|bias| &weight(bias)[0]);
                map(input(0), |row| {
                    let dot = |(index, line): (usize, &Vec<f32>)| {
                        line.iter().zip(row).map(|(w, x)| w * x).sum::<f32>() + bias.map_or(0.0, |bias| bias[index])
                    };
                    weight(*matrix).iter().enumerate().map(dot).collect()
                })
            }
            Op::Rope { head_dim, rope, .. } => {
                let rotate = |(position, row): (usize, &Vec<f32>)| {
                    row.chunks(*head_dim).flat_map(|head| rotated(head, rope, position, tokens.len())).collect()
                };
                input(0).iter().enumerate().map(rotate).collect()
            }
            Op::PositionScale { scale } => {
                let scaled = |(position, row): (usize, &Vec<f32>)| {
                    let times = (1 + position / scale.original_context) as f32;
                    row.iter().map(|value| value * (1.0 + scale.beta * times.ln())).collect()
                };
                input(0).iter().enumerate().map(scaled).collect()
            }
            Op::KvAppend { state } => {
                let cache = &mut caches[states[*state]];
                cache.keys.extend(input(0).iter().cloned());
                cache.values.extend(input(1).iter().cloned());
                continue;
            }
            Op::Attention { state, heads, attention, per_head } => {
                assert_eq!(block.state_slots[*state], graph.states[states[*state]].spec);
                let spec = block.state_slots[*state].kv().expect("a cache");
                assert!(per_head.iter().all(|vector| vector.role == forge_spec::Role::Sinks), "{per_head:?}");
                let sinks = per_head.first().map(|sinks| &weight(sinks.slot)[0][..]);
                attend(input(0), &caches[states[*state]], *heads, spec.kv_heads, spec.head_dim, attention, sinks)
            }
            Op::Route { routing, bias } => {
                let bias = bias.map(|bias| &weight(bias)[0][..]);
                map(input(0), |logits| crate::mixture::weights(logits, bias, routing))
            }
            Op::Experts { gate, up, down, biases, experts, activation } => {
                let [gate, up, down] = [gate, up, down].map(|slot| weight(*slot));
                let biases = biases.map(|slots| slots.map(|slot| &weight(slot)[0][..]));
                let one = |(row, weights): (&Vec<f32>, &Vec<f32>)| {
                    crate::mixture::experts(row, weights, [gate, up, down], biases, *experts, |gate, up| {
                        activate(gate, *activation, &[]) * linear(up, *activation)
                    })
                };
                input(0).iter().zip(input(1)).map(one).collect()
            }
            Op::SigmoidGate => {
                let sigmoid = |value: f32| 1.0 / (1.0 + (-value).exp());
                let one = |(row, gate): (&Vec<f32>, &Vec<f32>)| {
                    let gate = |index: usize| sigmoid(gate[if gate.len() == 1 { 0 } else { index }]);
                    row.iter().enumerate().map(|(index, value)| value * gate(index)).collect()
                };
                input(0).iter().zip(input(1)).map(one).collect()
            }
            Op::ShortConv { state, weight: taps, bias, taps: count } => {
                let channels = block.values[node.output.expect("a result")].width;
                let width = (count - 1) * channels;
                assert_eq!(graph.states[states[*state]].spec, StateSpec::Recurrent { width });
                recurrent::short_conv(input(0), channels, &weight(*taps)[0], bias.map(|bias| &weight(bias)[0][..]))
            }
            Op::GatedDelta { state, delta, conv, decay, time_bias, gamma } => {
                assert_eq!(graph.states[states[*state]].spec, StateSpec::Recurrent { width: delta.state_width() });
                let [conv, decay, time_bias, gamma] =
                    [conv, decay, time_bias, gamma].map(|slot| weight(*slot)[0].as_slice());
                let inputs = [0, 1, 2, 3].map(input);
                recurrent::gated_delta(inputs, delta, conv, [decay, time_bias, gamma])
            }
            Op::LatentAttention { state, sizes, gamma, eps, rope, scale, keys, by_key, values } => {
                let spec = LatentSpec { latent: sizes.latent, rope: sizes.rope };
                assert_eq!(graph.states[states[*state]].spec, StateSpec::Latent(spec));
                let turned = |position: usize, part: &[f32]| rotated(part, rope, position, tokens.len());
                let compress = |(position, row): (usize, &Vec<f32>)| {
                    let (latent, key) = row.split_at(sizes.latent);
                    [rms_norm(latent, Some(&weight(*gamma)[0]), *eps), turned(position, key)]
                };
                let compressed: Vec<[Vec<f32>; 2]> = input(1).iter().enumerate().map(compress).collect();
                let matrices = [weight(*keys), weight(*values)];
                latent::attention(input(0), &compressed, sizes, (matrices, *by_key), *scale, turned)
            }
            Op::HeadHalf { head_dim, second, .. } => map(input(0), |row| {
                let half = |head: &[f32]| head[usize::from(*second) * head_dim..][..*head_dim].to_vec();
                row.chunks(2 * head_dim).flat_map(half).collect()
            }),
            Op::GatedActivation { activation } => {
                zip(input(0), input(1), |gate, up| activate(gate, *activation, &[]) * linear(up, *activation))
            }
            Op::Activation { activation, parameters } => {
                let numbers = parameters.map_or(&[][..], |slot| &weight(slot)[0]);
                map(input(0), |row| row.iter().map(|&value| activate(value, *activation, numbers)).collect())
            }
            Op::Add => zip(input(0), input(1), |a, b| a + b),
            Op::Scale { factor } => map(input(0), |row| row.iter().map(|value| value * factor).collect()),
            Op::ScaleExperts { scale } => {
                let factors = &weight(*scale)[0];
                map(input(0), |row| row.iter().zip(factors).map(|(value, factor)| value * factor).collect())
            }
            Op::ScaleBy { scale } => {
                let factor = weight(*scale)[0][0];
                map(input(0), |row| row.iter().map(|value| value * factor).collect())
            }
            Op::SoftCap { cap } => map(input(0), |row| row.iter().map(|value| cap * (value / cap).tanh()).collect()),
        };
        let output = node.output.expect("an operation with a result");
        assert!(result.iter().all(|row| row.len() == block.values[output].width), "{}", block.values[output].name);
        values[output] = Some(result);
    }
    let layer_inputs = block.layer_inputs.and_then(|value| values[value].take());
    (values[block.output].take().expect("the output is computed"), layer_inputs)
}

fn map(rows: &Rows, f: impl Fn(&Vec<f32>) -> Vec<f32>) -> Rows {
    rows.iter().map(f).collect()
}

fn zip(a: &Rows, b: &Rows, f: impl Fn(f32, f32) -> f32) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
}

fn rms_norm(row: &[f32], gamma: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let mean = row.iter().map(|value| value * value).sum::<f32>() / row.len() as f32;
    let factor = 1.0 / (mean + eps).sqrt();
    row.iter().enumerate().map(|(index, value)| value * factor * gamma.map_or(1.0, |gamma| gamma[index])).collect()
}

fn layer_norm(row: &[f32], gamma: &[f32], beta: Option<&Vec<f32>>, eps: f32) -> Vec<f32> {
    let mean = row.iter().sum::<f32>() / row.len() as f32;
    let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f32>() / row.len() as f32;
    let factor = 1.0 / (variance + eps).sqrt();
    let one =
        |(index, value): (usize, &f32)| (value - mean) * factor * gamma[index] + beta.map_or(0.0, |beta| beta[index]);
    row.iter().enumerate().map(one).collect()
}

fn rotated(head: &[f32], rope: &Rope, position: usize, tokens: usize) -> Vec<f32> {
    let mut out = head.to_vec();
    let half = rope.rotary_dim / 2;
    let inv_freq = rope.frequencies(tokens);
    assert_eq!(inv_freq.len(), half);
    for (index, freq) in inv_freq.iter().enumerate() {
        let (first, second) = match rope.pairing {
            RopePairing::Halves => (index, index + half),
            RopePairing::Interleaved => (2 * index, 2 * index + 1),
        };
        let (sin, cos) = (position as f32 * freq).sin_cos();
        let (sin, cos) = (sin * rope.magnitude, cos * rope.magnitude);
        out[first] = head[first] * cos - head[second] * sin;
        out[second] = head[second] * cos + head[first] * sin;
    }
    out
}

fn attend(
    q: &Rows,
    cache: &Cache,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    spec: &Attention,
    sinks: Option<&[f32]>,
) -> Rows {
    let one = |(position, row): (usize, &Vec<f32>)| {
        let first = spec.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let head = |(head, q): (usize, &[f32])| {
            let at = head / (heads / kv_heads) * head_dim;
            let score = |key: &Vec<f32>| {
                let dot: f32 = key[at..at + head_dim].iter().zip(q).map(|(k, q)| k * q).sum();
                let score = dot * spec.scale;
                spec.softcap.map_or(score, |cap| cap * (score / cap).tanh())
            };
            let scores: Vec<f32> = cache.keys[first..=position].iter().map(score).collect();
            let sink = sinks.map(|sinks| sinks[head]);
            let largest = scores.iter().copied().chain(sink).fold(f32::MIN, f32::max);
            let exps: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f32 = exps.iter().copied().chain(sink.map(|sink| (sink - largest).exp())).sum();
            let mut out = vec![0.0; head_dim];
            for (exp, value) in exps.iter().zip(&cache.values[first..=position]) {
                out.iter_mut().zip(&value[at..]).for_each(|(out, value)| *out += exp / sum * value);
            }
            out
        };
        row.chunks(head_dim).enumerate().flat_map(head).collect()
    };
    q.iter().enumerate().map(one).collect()
}

fn activate(x: f32, activation: Activation, numbers: &[f32]) -> f32 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::GeluTanh => {
            let inner = (2.0 / std::f32::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::ReluSquared => x.max(0.0) * x.max(0.0),
        Activation::Xielu if x > 0.0 => numbers[0] * x * x + numbers[2] * x,
        Activation::Xielu => (x.min(numbers[3]).exp_m1() - x) * numbers[1] + numbers[2] * x,
        Activation::ClampedSwiglu { alpha, limit } => {
            let x = x.min(limit as f32 / 1000.0);
            x / (1.0 + (-(alpha as f32 / 1000.0) * x).exp())
        }
    }
}

/// What a gate is multiplied with.
fn linear(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::Silu | Activation::GeluTanh | Activation::ReluSquared | Activation::Xielu => x,
        Activation::ClampedSwiglu { limit, .. } => {
            let limit = limit as f32 / 1000.0;
            x.clamp(-limit, limit) + 1.0
        }
    }
}
