//! Attention over latents, by its definition: keys and values of every head are made of each position's latent.

use forge_frontend::graph::LatentSizes;

use super::interpreter::Rows;

/// Of queries as they are projected, and of each position's latent and rotated key. `matrices` are those of keys and values;
/// where keys are `by_key`, a head's rows are its key's elements, else those of the latent.
pub fn attention(
    queries: &Rows,
    compressed: &[[Vec<f32>; 2]],
    sizes: &LatentSizes,
    ([keys, values], by_key): ([&Rows; 2], bool),
    scale: f32,
    turned: impl Fn(usize, &[f32]) -> Vec<f32>,
) -> Rows {
    let &LatentSizes { heads, latent, rope, nope, value } = sizes;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let key = |head: usize, c: &[f32]| -> Vec<f32> {
        let element = |n: usize| match by_key {
            true => dot(&keys[head * nope + n], c),
            false => (0..latent).map(|l| keys[head * latent + l][n] * c[l]).sum(),
        };
        (0..nope).map(element).collect()
    };
    let one = |position: usize| {
        let row = &queries[position];
        let head = |head: usize| {
            let own = &row[head * (nope + rope)..][..nope + rope];
            let q = turned(position, &own[nope..]);
            let seen = &compressed[..=position];
            let score = |[c, r]: &[Vec<f32>; 2]| scale * (dot(&own[..nope], &key(head, c)) + dot(&q, r));
            let scores: Vec<f32> = seen.iter().map(score).collect();
            let largest = scores.iter().copied().fold(f32::MIN, f32::max);
            let exps: Vec<f32> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f32 = exps.iter().sum();
            let mixed = |v: usize| {
                let of = |(exp, [c, _]): (&f32, &[Vec<f32>; 2])| exp / sum * dot(&values[head * value + v], c);
                exps.iter().zip(seen).map(of).sum()
            };
            (0..value).map(mixed).collect::<Vec<f32>>()
        };
        (0..heads).flat_map(head).collect()
    };
    (0..queries.len()).map(one).collect()
}
