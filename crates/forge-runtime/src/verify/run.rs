//! One dispatch of one kernel with seeded inputs: buffers of exactly the right size, filled, bound, read back.

use std::collections::BTreeMap;

use super::super::batch::{Row, Token, Wants};
use super::super::gpu::{Buffer, Gpu, Kernel, Mapped, Slice, pool};
use super::super::weights::Weights;
use super::super::{Error, Result};
use super::cache;
use super::operations::Draw;
use super::packed::Packed;
use super::random::Random;
use super::table::{Argument, CacheType, Data, Dim, KernelCheck, Matrix, Role, Split, StepParams};

/// What outputs hold before: not a number.
const POISON: u32 = 0x7FC0_0000;

/// Copies of a recurrent state.
const STATE_COPIES: usize = 2;

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
    /// Positions that the cache holds of each sequence.
    pub capacity: usize,
    /// Sequences that the program holds.
    pub slots: usize,
    /// Whether the rows are of several of them.
    pub mixed: bool,
    /// The rows' tokens, where they matter; as records have them.
    pub tokens: Vec<u32>,
    /// For the sampling kernels.
    pub draw: Option<Draw>,
}

impl Case {
    /// `rows` rows from `position` on, in a cache that wraps at `wrap` or holds no more than is needed.
    pub fn at(rows: usize, position: usize, wrap: Option<usize>) -> Self {
        let capacity = wrap.unwrap_or(position + rows);
        Self { rows, position, capacity, slots: 1, mixed: false, tokens: Vec::new(), draw: None }
    }

    /// The same in a program that holds so many sequences, `mixed` with rows of several.
    pub fn of_slots(self, slots: usize, mixed: bool) -> Self {
        Self { slots, mixed, ..self }
    }

    /// Tokens below `end`, the last and the first of them first, in between such as their slot chose before.
    pub fn with_tokens(self, end: usize) -> Self {
        let mut random = Random::new("tokens", self.rows as u64);
        let ends = [end - 1, 0].into_iter();
        let ids = ends.chain(std::iter::repeat_with(|| random.below(end))).take(self.rows);
        let token = |(row, id): (usize, usize)| if row % 3 == 2 { StepParams::CHOSEN } else { id as u32 };
        Self { tokens: ids.enumerate().map(token).collect(), ..self }
    }

    /// Slot and position of a row.
    pub fn place(&self, row: usize) -> (usize, usize) {
        let slot = self.slots - 1 - if self.mixed { row % self.slots } else { 0 };
        (slot, self.position + row)
    }

    /// Where in a cache a row's sequence has `position`.
    pub fn cached(&self, row: usize, position: usize, wrap: Option<usize>) -> usize {
        self.place(row).0 * self.capacity + wrap.map_or(position, |wrap| position % wrap)
    }

    /// Whether a row chooses a token: no slot does so twice in one step.
    pub fn chooses(&self, row: usize) -> bool {
        self.draw.is_some() && row < self.slots
    }

    /// The words of all rows' records.
    fn records(&self) -> Vec<u32> {
        let record = |row: usize| {
            let (slot, position) = self.place(row);
            let wants = match &self.draw {
                Some(draw) if self.chooses(row) => Wants::Choice(draw.step.clone()),
                _ => Wants::Nothing,
            };
            let token = Token::Known(self.tokens.get(row).copied().unwrap_or(0));
            Row { token, slot, position, wants }.params(self.rows, self.capacity).words()
        };
        (0..self.rows).flat_map(record).collect()
    }

    /// The start of a sequence, just after it, and both parities further in, for kernels that carry a recurrent state.
    pub fn of_state(rows: usize, context: usize) -> Vec<Self> {
        let last = context.saturating_sub(rows);
        let mut positions = [0, 1, 100, 301].map(|position: usize| position.min(last)).to_vec();
        positions.dedup();
        positions.into_iter().map(|position| Self::at(rows, position, None)).collect()
    }

    /// The start of a sequence, somewhere in it, far in, and where a cache wraps; of a split context those that are.
    pub fn at_positions(rows: usize, wrap: Option<usize>, split: Option<Split>, context: usize) -> Vec<Self> {
        let last = context.saturating_sub(rows);
        let mut positions = match split {
            Some(split) => {
                vec![split.above.saturating_sub(rows / 2), 4 * split.above - 1, split.positions * split.most + 100]
            }
            None => vec![0, 100, 300],
        };
        positions.extend(wrap.map(|wrap| wrap.saturating_sub(rows / 2 + 1)));
        // Of several rows the first see less than what is split.
        let least = split.map_or(0, |split| split.above.saturating_sub(rows / 2));
        let mut positions: Vec<usize> = positions.into_iter().map(|position| position.min(last).max(least)).collect();
        positions.sort_unstable();
        positions.dedup();
        positions.into_iter().map(|position| Self::at(rows, position, wrap)).collect()
    }
}

/// Sizes of floats in rows that follow one another, for [`Input::Sizes`].
const SIZES: [f32; 5] = [1.0, 3.0e6, 2.0e-7, 700.0, 1.0e30];

/// What an argument that the kernel may read holds before the run.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// Floats from the one to the other.
    Between(f32, f32),
    /// Shares of a sum of so many squares whose mean is about 1.
    Squares(usize),
    /// Token ids below this.
    Tokens(usize),
    /// Keys or values.
    Cache(CacheType),
    /// These words, over and over.
    Words(Vec<u32>),
    /// Rows of so many floats, each of another order of magnitude.
    Sizes(usize),
}

impl Input {
    /// Floats from -1 to 1.
    pub const UNIT: Self = Self::Between(-1.0, 1.0);

    /// Powers of two for rows of such floats.
    pub fn scales() -> Self {
        Self::Words([14_i16, 3, -5].map(|power| f32::from(power).exp2().to_bits()).into())
    }

    /// `words` words for each of `rows` rows.
    fn words(&self, words: usize, rows: usize, random: &mut Random) -> Vec<u8> {
        let count = words * rows;
        let mut between = |low, high| bytes_of((0..count).map(|_| random.between(low, high).to_bits()));
        match self {
            Self::Between(low, high) => between(*low, *high),
            Self::Squares(terms) => {
                let mean = *terms as f32 / words as f32;
                between(0.5 * mean, 1.5 * mean)
            }
            Self::Tokens(end) => bytes_of((0..count).map(|_| random.below(*end) as u32)),
            Self::Cache(cache) => cache::contents(*cache, words, rows, random),
            Self::Sizes(width) => {
                let size = |at: usize| SIZES[at / width % SIZES.len()];
                bytes_of((0..count).map(|at| (size(at) * random.between(-1.0, 1.0)).to_bits()))
            }
            Self::Words(words) => bytes_of(words.iter().copied().cycle().take(count)),
        }
    }
}

/// The recurrent state of one sequence in a step.
#[derive(Debug)]
pub(super) struct Carried {
    /// The sequence's rows, in order.
    pub rows: Vec<usize>,
    /// The state before the first of them; none at the sequence's beginning.
    pub before: Option<Vec<f32>>,
    /// Where the state after the last of them begins.
    pub start: usize,
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
    /// Runs `check` with `kernel` and these inputs as `case` says.
    ///
    /// # Errors
    /// A tensor that is missing, an argument that the operation has no input for, no memory, or what the device reports.
    pub fn new(
        bench: &Bench<'a>,
        check: &KernelCheck,
        kernel: &Kernel,
        case: &'a Case,
        inputs: &[(Role, Input)],
    ) -> Result<Self> {
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
            let contents = contents(argument, inputs, name, case)?;
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
            Dim::PositionTiles(tile) => (case.position + case.rows).div_ceil(tile),
            Dim::Parts => check.operation.split().map_or(1, |split| split.parts(case.position + case.rows - 1)),
            Dim::Indirect { per_row, most } => (per_row * case.rows).min(most),
        });
        let grid = grid.map(|count| count as u32);
        // Where the program has the grid from a dispatch before, the largest there may be is written here.
        let counts = if check.grid.iter().any(|dim| dim.is_indirect()) {
            let counts = bench.gpu.alloc("threadgroup counts", 12)?;
            counts.write(0, &grid);
            Some(counts.whole())
        } else {
            None
        };
        let pending = pool(|| {
            let mut commands = bench.gpu.commands(name);
            let arguments: Vec<&Slice> = slices.iter().collect();
            match &counts {
                Some(counts) => commands.dispatch_indirect(kernel, &arguments, counts, grid),
                None => commands.dispatch(kernel, &arguments, grid),
            }
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

    /// Tokens of the rows, those that their slots chose before among them.
    pub fn tokens(&self) -> Vec<u32> {
        let chosen = self.words_given(Role::NextToken);
        let token = |(row, &token)| if token == StepParams::CHOSEN { chosen[self.case.place(row).0] } else { token };
        self.case.tokens.iter().enumerate().map(token).collect()
    }

    /// u32 values that the kernel left of one of `parts` equal parts of an argument.
    pub fn part_left(&self, role: Role, part: usize, parts: usize) -> Vec<u32> {
        let words = self.words_left(role);
        let length = words.len() / parts;
        words[part * length..][..length].to_vec()
    }

    /// u32 values that the kernel left.
    pub fn words_left(&self, role: Role) -> Vec<u32> {
        self.left(role).into_iter().map(f32::to_bits).collect()
    }

    /// What the step does with the recurrent state, of `width` elements, of each sequence that rows of it are of.
    pub fn carried(&self, width: usize) -> Vec<Carried> {
        let given = self.given(Role::State);
        let copy = |slot: usize, position: usize| (slot * STATE_COPIES + position % STATE_COPIES) * width;
        let carried = |slot: usize| {
            let rows: Vec<usize> = (0..self.case.rows).filter(|&row| self.case.place(row).0 == slot).collect();
            let [first, .., last] = [*rows.first()?, *rows.last()?];
            let before = self.case.place(first).1.checked_sub(1).map(|position| copy(slot, position));
            Some(Carried {
                before: before.map(|start| given[start..start + width].to_vec()),
                start: copy(slot, self.case.place(last).1),
                rows,
            })
        };
        (0..self.case.slots).filter_map(carried).collect()
    }

    /// Where in a cache a row's sequence has `position`, be it of all sequences or of that one.
    pub fn cached(&self, role: Role, row: usize, position: usize, wrap: Option<usize>) -> usize {
        let alone = |argument: &Argument| argument.role == role && matches!(argument.data, Data::Positions(_));
        if self.arguments.iter().any(alone) { position } else { self.case.cached(row, position, wrap) }
    }

    /// A cache that the kernel was given.
    pub fn cache_given(&self, role: Role, cache: CacheType) -> Vec<f64> {
        cache::elements(cache, self.cache_width(role), self.before.get(&role).map_or(&[], |bytes| bytes))
    }

    /// A cache that the kernel left.
    pub fn cache_left(&self, role: Role, cache: CacheType) -> Vec<f64> {
        cache::elements(cache, self.cache_width(role), self.after.get(&role).map_or(&[], |bytes| bytes))
    }

    /// The scales of a cache that the kernel left, one for each block of elements; none where it has none.
    pub fn cache_scales_left(&self, role: Role, cache: CacheType) -> Vec<f64> {
        cache::scales(cache, self.cache_width(role), self.after.get(&role).map_or(&[], |bytes| bytes))
    }

    /// Elements of a position of a cache.
    fn cache_width(&self, role: Role) -> usize {
        let width = self.arguments.iter().find_map(|argument| match argument.data {
            Data::Cache(width) | Data::Positions(width) if argument.role == role => Some(width),
            _ => None,
        });
        width.unwrap_or(1)
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn bytes_of(words: impl IntoIterator<Item = u32>) -> Vec<u8> {
    words.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// What an argument that is no tensor holds before the run.
fn contents(argument: &Argument, inputs: &[(Role, Input)], name: &str, case: &Case) -> Result<Vec<u8>> {
    let mut random = Random::new(&format!("{name} {:?}", argument.role), case.rows as u64);
    let input = || {
        let found = inputs.iter().find(|(role, _)| *role == argument.role);
        found
            .map(|(_, input)| input)
            .ok_or_else(|| Error::NoInput { kernel: name.to_owned(), role: argument.role.name() })
    };
    Ok(match argument.data {
        Data::Tensor(_) => Vec::new(),
        Data::Params => bytes_of(case.records()),
        // What an append leaves as it was is compared too.
        Data::Cache(width) => input()?.words(width, case.capacity * case.slots, &mut random),
        Data::Positions(width) => {
            let bytes = input()?.words(width, case.capacity, &mut random);
            // No number, whether of two bytes or of four.
            if argument.reads { bytes } else { vec![0xFF; bytes.len()] }
        }
        Data::State(width) => input()?.words(width, STATE_COPIES * case.slots, &mut random),
        Data::Slots(words) if argument.reads => input()?.words(words, case.slots, &mut random),
        Data::Slots(words) => bytes_of((0..words * case.slots).map(|_| POISON)),
        Data::Words(words) if argument.reads => input()?.words(words, case.rows, &mut random),
        Data::Words(words) => bytes_of((0..words * case.rows).map(|_| POISON)),
    })
}
