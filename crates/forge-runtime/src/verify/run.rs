//! One dispatch of one kernel with seeded inputs: buffers of exactly the right size, filled, bound, read back.

use std::collections::BTreeMap;

use super::super::Result;
use super::super::gpu::{Buffer, Gpu, Kernel, Mapped, Slice, pool};
use super::super::sampler::StepSampling;
use super::super::spec::Format;
use super::super::weights::Weights;
use super::packed::{Packed, half};
use super::random::Random;
use super::sampling::Draw;
use super::table::{Argument, CacheType, Data, Dim, KernelCheck, Matrix, Operation, Role, Split};

/// Bytes of a `StepParams` record.
const RECORD_BYTES: u64 = 256;
/// What outputs hold before: not a number.
const POISON: u32 = 0x7FC0_0000;

/// Where the kernel runs.
pub(super) struct Bench<'a> {
    pub gpu: &'a Gpu,
    pub weights: &'a Weights,
    pub mapped: &'a Mapped,
}

/// What one step is given.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// Rows of the step.
    pub rows: usize,
    /// Position of the first row.
    pub position: usize,
    /// Positions that the cache holds.
    pub capacity: usize,
    /// For the sampling kernels.
    pub draw: Option<Draw>,
}

/// A finished run: every argument before and after.
pub(super) struct Run<'a> {
    pub case: &'a Case,
    arguments: &'static [Argument<'static>],
    weights: &'a Weights,
    before: BTreeMap<Role, Vec<u8>>,
    after: BTreeMap<Role, Vec<u8>>,
}

impl<'a> Run<'a> {
    /// Runs `check` with `kernel` as `case` says.
    ///
    /// # Errors
    /// A tensor that is missing, no memory, or what the device reports.
    pub fn new(bench: &Bench<'a>, check: &KernelCheck, kernel: &Kernel, case: &'a Case) -> Result<Self> {
        let name = kernel.name();
        let mut before = BTreeMap::new();
        let mut buffers: BTreeMap<Role, Buffer> = BTreeMap::new();
        let mut slices: Vec<Slice> = Vec::new();
        for argument in check.arguments {
            if let Data::Tensor(tensor) = argument.data {
                let tensor = bench.weights.tensor(tensor)?;
                slices.push(bench.mapped.slice(tensor.offset, tensor.bytes));
                continue;
            }
            let contents = contents(check, argument, name, case);
            let buffer = bench.gpu.alloc(&format!("{:?}", argument.role), contents.len() as u64)?;
            buffer.write(0, &contents);
            slices.push(buffer.whole());
            buffers.insert(argument.role, buffer);
            before.insert(argument.role, contents);
        }
        let grid = check.grid.map(|dim| match dim {
            Dim::Const(count) => count,
            Dim::Rows => case.rows,
            Dim::RowTiles(tile) => case.rows.div_ceil(tile),
            Dim::Parts => check.operation.split().map_or(1, |split| split.parts(case.position)),
        });
        let pending = pool(|| {
            let mut commands = bench.gpu.commands(name);
            let arguments: Vec<&Slice> = slices.iter().collect();
            commands.dispatch(kernel, &arguments, grid.map(|count| count as u32));
            commands.commit()
        });
        pending.wait()?;
        let mut after = BTreeMap::new();
        for argument in check.arguments.iter().filter(|argument| argument.writes) {
            if let Some(buffer) = buffers.get(&argument.role) {
                let mut bytes = vec![0_u8; buffer.bytes() as usize];
                buffer.read(0, &mut bytes);
                after.insert(argument.role, bytes);
            }
        }
        Ok(Self { case, arguments: check.arguments, weights: bench.weights, before, after })
    }

    /// Whether the kernel has this argument.
    pub fn has(&self, role: Role) -> bool {
        self.arguments.iter().any(|argument| argument.role == role)
    }

    /// Bytes of an argument that is a tensor of the weights file.
    fn tensor(&self, role: Role) -> &[u8] {
        let tensor = self.arguments.iter().find_map(|argument| match argument.data {
            Data::Tensor(name) if argument.role == role => self.weights.tensor(name).ok(),
            _ => None,
        });
        tensor
            .map_or(&[], |tensor| &self.weights.map()[tensor.offset as usize..(tensor.offset + tensor.bytes) as usize])
    }

    /// A packed matrix.
    pub fn matrix(&self, role: Role, matrix: &Matrix) -> Packed<'_> {
        let Matrix { format, rows, cols } = *matrix;
        Packed { bytes: self.tensor(role), format, rows, cols }
    }

    /// f32 values that the kernel was given.
    pub fn given(&self, role: Role) -> Vec<f32> {
        floats(self.before.get(&role).map_or(self.tensor(role), |bytes| bytes))
    }

    /// f32 values that the kernel left.
    pub fn left(&self, role: Role) -> Vec<f32> {
        floats(self.after.get(&role).map_or(&[], |bytes| bytes))
    }

    /// u32 values that the kernel was given.
    pub fn words_given(&self, role: Role) -> Vec<u32> {
        self.given(role).into_iter().map(f32::to_bits).collect()
    }

    /// u32 values that the kernel left.
    pub fn words_left(&self, role: Role) -> Vec<u32> {
        self.left(role).into_iter().map(f32::to_bits).collect()
    }

    /// A cache that the kernel was given.
    pub fn cache_given(&self, role: Role, cache: CacheType) -> Vec<f64> {
        elements(cache, self.before.get(&role).map_or(&[], |bytes| bytes))
    }

    /// A cache that the kernel left.
    pub fn cache_left(&self, role: Role, cache: CacheType) -> Vec<f64> {
        elements(cache, self.after.get(&role).map_or(&[], |bytes| bytes))
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn elements(cache: CacheType, bytes: &[u8]) -> Vec<f64> {
    match cache {
        CacheType::F16 => bytes.chunks_exact(2).map(|b| half(u32::from(u16::from_le_bytes([b[0], b[1]])))).collect(),
        CacheType::F32 => floats(bytes).into_iter().map(f64::from).collect(),
    }
}

fn bytes_of(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// What an argument that is no tensor holds before the run.
fn contents(check: &KernelCheck, argument: &Argument, name: &str, case: &Case) -> Vec<u8> {
    let mut random = Random::new(&format!("{name} {:?}", argument.role), case.rows as u64);
    match argument.data {
        Data::Tensor(_) => Vec::new(),
        Data::Params => {
            let sampling = case.draw.as_ref().map_or_else(StepSampling::default, |draw| draw.step.clone());
            let mut bytes = bytes_of([case.position as u32, case.rows as u32].into_iter().chain(sampling.words()));
            bytes.resize(RECORD_BYTES as usize, 0);
            bytes
        }
        Data::Cache(width) => {
            let count = width * case.capacity;
            match check.operation.cache() {
                CacheType::F16 => (0..count).flat_map(|_| random.half_bits().to_le_bytes()).collect(),
                CacheType::F32 => bytes_of((0..count).map(|_| random.between(-1.0, 1.0).to_bits())),
            }
        }
        Data::Words(words) => {
            let count = words * case.rows;
            if let Some(contents) = case.draw.as_ref().and_then(|draw| draw.contents(argument)) {
                return bytes_of(contents);
            }
            if !argument.reads {
                return bytes_of((0..count).map(|_| POISON));
            }
            let (low, high) = match (argument.role, check.operation) {
                (Role::Tokens, Operation::Embed { table, .. } | Operation::LayerInputs { table, .. }) => {
                    let ends = [table.rows - 1, 0].into_iter();
                    let ids = ends.chain(std::iter::repeat_with(|| random.below(table.rows)));
                    return bytes_of(ids.take(count).map(|id| id as u32));
                }
                // Shares of a sum of squares whose mean is about 1.
                (Role::InputSums | Role::ResultSums, operation) => {
                    let mean = operation.width() as f32 / words as f32;
                    (0.5 * mean, 1.5 * mean)
                }
                // Highest scores and weights come after the sums; all of them positive.
                (Role::Parts, _) => (0.5, 4.0),
                // Scores far enough apart that one key too many shows.
                (Role::Q, _) => (-4.0, 4.0),
                _ => (-1.0, 1.0),
            };
            bytes_of((0..count).map(|_| random.between(low, high).to_bits()))
        }
    }
}

impl Operation<'_> {
    /// Element type of the cache, for the operations that have one.
    fn cache(&self) -> CacheType {
        match self {
            Self::RopeAppend(rope) => rope.cache,
            Self::Attention(attention) => attention.cache,
            _ => CacheType::F32,
        }
    }

    /// How the context is cut, for the kernels of a split one.
    pub fn split(&self) -> Option<Split> {
        match self {
            Self::Attention(attention) => attention.split,
            Self::AttentionCombine { split, .. } => Some(*split),
            _ => None,
        }
    }

    /// Elements whose squares a norm adds up.
    fn width(&self) -> usize {
        match self {
            Self::Project(projection) => projection.matrices.first().map_or(0, |matrix| matrix.cols),
            Self::RmsNorm { width, .. } | Self::PostNorm { width, .. } => *width,
            _ => 1,
        }
    }
}

impl Matrix {
    /// `[4096, 4096] q8_0`.
    pub(super) fn describe(&self) -> String {
        let format = match self.format {
            Format::Affine { bits, group, .. } => format!("affine{bits}_g{group}"),
            other => format!("{other:?}").to_lowercase(),
        };
        format!("[{}, {}] {format}", self.rows, self.cols)
    }
}
