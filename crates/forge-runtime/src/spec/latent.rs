//! Latent attention: keys and values of all heads are made of one short vector a position, and that is what the cache holds.

use super::operation::{CacheType, Matrix, Split};

/// Sizes of latent attention (DeepSeek-AI, "DeepSeek-V2", 2024).
///
/// A position has a latent c, normed, and one rotated key r for all heads. Head h has the key `[K_h c, r]` and the value `V_h c`,
/// and its query is `[q, p]`, p rotated. So a score is `(K_h^T q) . c + p . r`, and the result `V_h` times the weighted sum of the
/// latents: the head's queries become as wide as the latent, and nothing is made of a position anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentSizes {
    /// Query heads.
    pub heads: usize,
    /// Elements of a latent (`kv_lora_rank`).
    pub latent: usize,
    /// Elements of the key that all heads share, all of which rotate (`qk_rope_head_dim`).
    pub rope: usize,
    /// Elements of a head's key that come from the latent (`qk_nope_head_dim`).
    pub nope: usize,
    /// Elements of a head's value (`v_head_dim`).
    pub value: usize,
}

impl LatentSizes {
    /// Elements of a position in the cache: latent, then the shared key. Queries over it are as wide.
    pub const fn position(&self) -> usize {
        self.latent + self.rope
    }

    /// Elements of all heads' queries as their projection leaves them: each head's `nope`, then its `rope`.
    pub const fn queries(&self) -> usize {
        self.heads * (self.nope + self.rope)
    }
}

/// Norm of the latent, rotation of the shared key, and the append of both to the cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentAppend<'a> {
    /// Elements of a row before the latent: queries, or a latent of theirs.
    pub before: usize,
    /// Whether these are normed too, into the argument `y`.
    pub norms_queries: bool,
    /// Elements of the latent.
    pub latent: usize,
    /// Elements of the shared key, which come after it.
    pub rope: usize,
    /// Added to the mean of squares, by both norms.
    pub eps: f32,
    /// Rotations per position of each pair, `[rope / 2]`.
    pub inv_freq: &'a [f32],
    /// Pairs are (2i, 2i + 1) rather than (i, i + rope / 2).
    pub interleaved: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
    /// Element type of the cache.
    pub cache: CacheType,
}

/// Queries over the cache, `[heads, latent + rope]`: each head's `K_h^T q`, then its rotated part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentQueries<'a> {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Elements of a row of the input, whose first are the queries.
    pub width: usize,
    /// `[heads * nope, latent]`, or `[heads * latent, nope]`.
    pub keys: Matrix,
    /// Whether it is the first of these: a head's rows are elements of its key.
    pub by_key: bool,
    /// Rotations per position of each pair, `[rope / 2]`.
    pub inv_freq: &'a [f32],
    /// Pairs are (2i, 2i + 1) rather than (i, i + rope / 2).
    pub interleaved: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
}

/// Keys or values of every head, of all positions that a tile sees: what a cache without latents would hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentExpand {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Which of the two.
    pub heads: HeadMatrix,
    /// Element type of the cache, and of the result.
    pub cache: CacheType,
    /// Latents and weights are rounded to half.
    pub half_operands: bool,
}

/// A matrix of each head over the latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HeadMatrix {
    /// That of keys: `[heads * nope, latent]`, or `[heads * latent, nope]`. A result has the shared key at its end.
    Keys {
        /// The matrix.
        matrix: Matrix,
        /// Whether it is the first of these: a head's rows are elements of its key.
        by_key: bool,
    },
    /// That of values, `[heads * value, latent]`.
    Values(Matrix),
}

impl HeadMatrix {
    /// The matrix.
    pub const fn matrix(&self) -> &Matrix {
        match self {
            Self::Keys { matrix, .. } | Self::Values(matrix) => matrix,
        }
    }
}

/// Queries over such keys, `[heads, nope + rope]`: each head's as it is, then its rotated part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentRotate<'a> {
    /// Sizes.
    pub sizes: LatentSizes,
    /// Elements of a row of the input, whose first are the queries.
    pub width: usize,
    /// Rotations per position of each pair, `[rope / 2]`.
    pub inv_freq: &'a [f32],
    /// Pairs are (2i, 2i + 1) rather than (i, i + rope / 2).
    pub interleaved: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
}

/// Causal attention of all heads over the one cache of latents; the result is a latent for each head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentAttention {
    /// Query heads.
    pub heads: usize,
    /// Elements of a latent: those of a position that are values.
    pub latent: usize,
    /// Elements of the shared key, which come after it.
    pub rope: usize,
    /// Factor on the scores.
    pub scale: f32,
    /// Element type of the cache.
    pub cache: CacheType,
    /// Queries and probabilities are rounded to half.
    pub half_operands: bool,
    /// The kernel leaves results of parts of the context; see [`Attention::split`](super::Attention::split).
    pub split: Option<Split>,
}

/// Each head's own matrix times its part of a row: values from latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatentValues {
    /// Sizes.
    pub sizes: LatentSizes,
    /// `[heads * value, latent]`.
    pub values: Matrix,
}
