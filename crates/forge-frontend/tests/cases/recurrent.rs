//! The operations that keep a recurrent state, over a whole text at once.

use forge_frontend::graph::GatedDelta;

use super::interpreter::Rows;

/// Gate, convolution of each channel, gate, over rows of B, C and X.
pub fn short_conv(rows: &Rows, channels: usize, taps: &[f32], bias: Option<&[f32]>) -> Rows {
    let count = taps.len() / channels;
    let one = |row: usize| {
        let channel = |i: usize| {
            let tap = |tap: usize| {
                let Some(at) = (row + tap + 1).checked_sub(count) else { return 0.0 };
                taps[i * count + tap] * rows[at][i] * rows[at][2 * channels + i]
            };
            let sum: f32 = (0..count).map(tap).sum();
            rows[row][channels + i] * (sum + bias.map_or(0.0, |bias| bias[i]))
        };
        (0..channels).map(channel).collect()
    };
    (0..rows.len()).map(one).collect()
}

fn silu(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

/// Row `row` of a convolution of each channel, with zeros before the first row.
fn convolved(rows: &Rows, row: usize, channel: usize, taps: &[f32]) -> f32 {
    let taps =
        taps.iter().enumerate().map(|(tap, weight)| (row + tap + 1).checked_sub(taps.len()).map(|at| (at, weight)));
    taps.flatten().map(|(at, weight)| weight * rows[at][channel]).sum()
}

/// The delta rule with a gate and a decay: q, k and v, z, b, a of each row; then rates of decay, what is added to a, and gamma.
pub fn gated_delta(inputs: [&Rows; 4], delta: &GatedDelta, conv: &[f32], vectors: [&[f32]; 3]) -> Rows {
    let [qkv, z, b, a] = inputs;
    let [decay, time_bias, gamma] = vectors;
    let (keys, values) = (delta.key_dim, delta.value_dim);
    let mut states = vec![vec![vec![0.0_f32; keys]; values]; delta.value_heads];
    let one = |row: usize| {
        let mixed: Vec<f32> = (0..delta.channels())
            .map(|c| silu(convolved(qkv, row, c, &conv[c * delta.taps..][..delta.taps])))
            .collect();
        let mut out = Vec::new();
        for (head, state) in states.iter_mut().enumerate() {
            let key_head = match delta.tiled_heads {
                true => head % delta.key_heads,
                false => head * delta.key_heads / delta.value_heads,
            };
            let unit = |first: usize| -> Vec<f32> {
                let part = &mixed[first + key_head * keys..][..keys];
                let length = (part.iter().map(|x| x * x).sum::<f32>() + 1e-6).sqrt();
                part.iter().map(|x| x / length).collect()
            };
            let (q, k) = (unit(0), unit(delta.key_heads * keys));
            let v = &mixed[2 * delta.key_heads * keys + head * values..][..values];
            let keep = (decay[head] * (1.0 + (a[row][head] + time_bias[head]).exp()).ln()).exp();
            let write = 1.0 / (1.0 + (-b[row][head]).exp());
            let mut read = Vec::new();
            for (line, v) in state.iter_mut().zip(v) {
                line.iter_mut().for_each(|s| *s *= keep);
                let change = write * (v - line.iter().zip(&k).map(|(s, k)| s * k).sum::<f32>());
                line.iter_mut().zip(&k).for_each(|(s, k)| *s += change * k);
                read.push(line.iter().zip(&q).map(|(s, q)| s * q).sum::<f32>() / (keys as f32).sqrt());
            }
            let rms = (read.iter().map(|x| x * x).sum::<f32>() / values as f32 + delta.eps).sqrt();
            let gates = &z[row][head * values..][..values];
            out.extend(read.iter().zip(gamma).zip(gates).map(|((x, gamma), z)| x / rms * gamma * silu(*z)));
        }
        out
    };
    (0..qkv.len()).map(one).collect()
}
