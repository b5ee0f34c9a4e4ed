//! What is kept of a sequence between steps: kinds of states, their sizes, and what a step has to move of them.

use forge_frontend::graph::{LatentSpec, StateSpec};
use forge_spec::CacheType;

/// Copies of a recurrent state: after position p it lies in copy p % 2. A step reads one and writes the other, so that one
/// that runs ahead past a sequence's end destroys nothing, and a step that is repeated gives the same.
pub const STATE_COPIES: usize = 2;
/// Bytes of an element of a recurrent state, which is f32 whatever keys and values are.
const RECURRENT_BYTES: usize = 4;

/// A state of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatePlan {
    /// Keys and values of each position.
    Kv(KvPlan),
    /// Of each position of the whole context a latent and a key that all heads share.
    Latent(LatentSpec),
    /// What stands for all positions so far, [`STATE_COPIES`] times.
    Recurrent {
        /// f32 elements of a copy.
        width: usize,
    },
}

/// A KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvPlan {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Positions that a token looks at, itself included; `None`: all.
    pub window: Option<usize>,
    /// Positions kept; `None`: the whole context.
    pub capacity: Option<usize>,
}

impl KvPlan {
    /// Elements of K (and of V) per position.
    pub fn width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes of K (and of V) of a position that are read and written.
    pub fn position_bytes(&self, kv: CacheType) -> usize {
        kv.bytes(self.width())
    }

    /// Bytes from K (or V) of a position to that of the next.
    pub fn position_stride(&self, kv: CacheType) -> usize {
        kv.stride(self.width())
    }
}

impl StatePlan {
    /// The state of a program whose steps have up to `tile` rows and whose contexts up to `context` tokens.
    pub fn new(spec: StateSpec, tile: usize, context: usize) -> Self {
        match spec {
            StateSpec::Kv(spec) => Self::Kv(KvPlan {
                kv_heads: spec.kv_heads,
                head_dim: spec.head_dim,
                window: spec.window,
                capacity: capacity(spec.window, tile, context),
            }),
            StateSpec::Latent(spec) => Self::Latent(spec),
            StateSpec::Recurrent { width } => Self::Recurrent { width },
        }
    }

    /// The KV cache, where it is one.
    pub fn kv(&self) -> Option<&KvPlan> {
        match self {
            Self::Kv(cache) => Some(cache),
            Self::Latent(_) | Self::Recurrent { .. } => None,
        }
    }

    /// Elements of a position of latents, where it is such a cache.
    pub fn latents(&self) -> Option<usize> {
        match self {
            Self::Latent(spec) => Some(spec.latent + spec.rope),
            Self::Kv(_) | Self::Recurrent { .. } => None,
        }
    }

    /// Whether it stands for all positions so far at once, in as many bytes whatever their number.
    pub fn is_recurrent(&self) -> bool {
        matches!(self, Self::Recurrent { .. })
    }

    /// Bytes for one sequence of up to `context` tokens.
    pub fn bytes(&self, kv: CacheType, context: usize) -> u64 {
        match self {
            Self::Kv(cache) => {
                (2 * cache.position_stride(kv)) as u64 * cache.capacity.unwrap_or(context).min(context) as u64
            }
            Self::Latent(spec) => (kv.stride(spec.latent + spec.rope) * context) as u64,
            Self::Recurrent { width } => (STATE_COPIES * width * RECURRENT_BYTES) as u64,
        }
    }

    /// Bytes that one more token of context costs.
    pub fn bytes_per_token(&self, kv: CacheType) -> u64 {
        match self {
            Self::Kv(cache) if cache.capacity.is_none() => (2 * cache.position_stride(kv)) as u64,
            Self::Latent(spec) => kv.stride(spec.latent + spec.rope) as u64,
            Self::Kv(_) | Self::Recurrent { .. } => 0,
        }
    }

    /// Bytes that `rows` rows from `position` on read at least.
    pub fn least_read(&self, kv: CacheType, rows: usize, position: usize) -> u64 {
        let bytes = match self {
            Self::Kv(cache) => {
                let window = cache.window.unwrap_or(usize::MAX);
                (position + rows).min(window.saturating_add(rows - 1)) * 2 * cache.position_bytes(kv)
            }
            Self::Latent(spec) => (position + rows) * kv.bytes(spec.latent + spec.rope),
            Self::Recurrent { width } => usize::from(position > 0) * width * RECURRENT_BYTES,
        };
        bytes as u64
    }

    /// Bytes that so many rows write.
    pub fn written(&self, kv: CacheType, rows: usize) -> u64 {
        let bytes = match self {
            Self::Kv(cache) => rows * 2 * cache.position_bytes(kv),
            Self::Latent(spec) => rows * kv.bytes(spec.latent + spec.rope),
            Self::Recurrent { width } => width * RECURRENT_BYTES,
        };
        bytes as u64
    }
}

/// Positions that a windowed cache keeps: the window, and what a tile appends before its first row reads.
pub(crate) fn capacity(window: Option<usize>, tile: usize, context: usize) -> Option<usize> {
    window.map(|window| window + tile - 1).filter(|&capacity| capacity < context)
}

#[cfg(test)]
mod tests {
    use forge_frontend::graph::KvSpec;

    use super::*;

    #[test]
    fn sizes_by_kind() {
        let kv = |window| StatePlan::new(StateSpec::Kv(KvSpec { kv_heads: 2, head_dim: 8, window }), 256, 1024);
        let (whole, windowed) = (kv(None), kv(Some(100)));
        assert_eq!(whole.bytes(CacheType::F16, 1000), 2 * 16 * 2 * 1000);
        assert_eq!(whole.bytes_per_token(CacheType::F32), 2 * 16 * 4);
        // The window and a tile, less the row that both have.
        assert_eq!(windowed.bytes(CacheType::F16, 1000), 2 * 16 * 2 * 355);
        assert_eq!(windowed.bytes(CacheType::F16, 50), 2 * 16 * 2 * 50);
        assert_eq!(windowed.bytes_per_token(CacheType::F16), 0);
        let recurrent = StatePlan::new(StateSpec::Recurrent { width: 10 }, 256, 1024);
        assert_eq!(recurrent.bytes(CacheType::F16, 1000), 2 * 10 * 4);
        assert_eq!(recurrent.bytes_per_token(CacheType::F16), 0);
        let latent = StatePlan::new(StateSpec::Latent(LatentSpec { latent: 32, rope: 32 }), 256, 1024);
        assert_eq!(latent.bytes(CacheType::F16, 1000), 64 * 2 * 1000);
        // Codes and scales of two blocks, filled up to eight bytes.
        assert_eq!(latent.bytes_per_token(CacheType::Q8_0), 72);
        assert_eq!(latent.least_read(CacheType::F32, 2, 9), 11 * 64 * 4);
        assert_eq!(latent.written(CacheType::F32, 2), 2 * 64 * 4);
        // The first step of a sequence reads nothing.
        assert_eq!([0, 1].map(|position| recurrent.least_read(CacheType::F16, 7, position)), [0, 40]);
        assert_eq!(recurrent.written(CacheType::F16, 7), 40);
        assert_eq!((whole.least_read(CacheType::F16, 1, 9), whole.written(CacheType::F16, 1)), (10 * 64, 64));
        assert_eq!(
            (windowed.least_read(CacheType::F16, 7, 500), windowed.written(CacheType::F16, 7)),
            (106 * 64, 7 * 64)
        );
    }
}
