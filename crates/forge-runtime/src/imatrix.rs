//! An importance matrix: for each column of each matrix, the sum of the squares of what it is multiplied by while a text runs. A
//! quantiser weights errors by it (`forge gen --imatrix`).
//!
//! Nothing of the model is changed for it. Tiles of the text run as ever while their dispatches are recorded; then the same dispatches
//! run once more, one by one, and before each product its input is read from the buffer that the dispatch is bound to. So it costs each tile
//! twice, and a wait for each dispatch.
//!
//! The file is llama.cpp's: a GGUF of type `imatrix` with `NAME.in_sum2` `[matrices, cols]` and `NAME.counts` `[matrices, 1]`, f32, for each
//! matrix NAME, or each stack of experts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::gpu::{Dispatch, Gpu, REPEATABLE_ROWS, Slice, pool};
use super::spec::{Argument, Data, Operation, Role};
use super::verify::{Checks, KernelCheck};
use super::weights::Weights;
use super::{Error, LanguageModel, Result};

/// Tokens of a tile.
pub const TILE: usize = REPEATABLE_ROWS;

/// What the matrices of one tensor of the weights file are multiplied by: they are stacked because it is the same for all.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sums {
    /// `[matrices, cols]`; several of a stack of experts.
    squares: Vec<f64>,
    /// `[matrices]`, rows that were summed.
    counts: Vec<u64>,
}

impl Sums {
    fn add(&mut self, matrix: usize, row: &[f32]) {
        self.counts[matrix] += 1;
        for (sum, value) in self.squares[matrix * row.len()..].iter_mut().zip(row) {
            *sum += f64::from(*value).powi(2);
        }
    }
}

/// Sums over everything that ran so far.
pub struct Imatrix<'a> {
    checks: &'a Checks,
    /// By tensor of the weights file, those of each layer in the order of the layers: what is found by its field.
    tensors: BTreeMap<String, Vec<String>>,
    sums: BTreeMap<String, Sums>,
    tiles: usize,
}

/// The field of a tensor, `qkv_proj` of `layers.3.qkv_proj`, and its layer where it has one.
fn field(tensor: &str) -> (Option<usize>, &str) {
    let of_layer = tensor.strip_prefix("layers.").and_then(|rest| rest.split_once('.'));
    match of_layer.map(|(layer, field)| (layer.parse().ok(), field)) {
        Some((Some(layer), field)) => (Some(layer), field),
        _ => (None, tensor),
    }
}

impl<'a> Imatrix<'a> {
    /// Nothing yet, of a program with these kernels and weights.
    pub fn new(checks: &'a Checks, weights: &Weights) -> Self {
        let mut tensors: BTreeMap<String, Vec<(Option<usize>, String)>> = BTreeMap::new();
        for tensor in weights.tensors().keys() {
            let (layer, field) = field(tensor);
            tensors.entry(field.to_owned()).or_default().push((layer, tensor.clone()));
        }
        let in_order = |(field, mut all): (String, Vec<(Option<usize>, String)>)| {
            all.sort();
            (field, all.into_iter().map(|(_, tensor)| tensor).collect())
        };
        let tensors = tensors.into_iter().map(in_order).collect();
        Self { checks, tensors, sums: BTreeMap::new(), tiles: 0 }
    }

    /// Runs a sequence from its beginning, in tiles of [`TILE`] tokens, and counts what its products read. Of a last tile with an even number of
    /// tokens the last token is left out.
    ///
    /// # Errors
    /// A model without kernels, and GPU errors.
    pub fn run<M: LanguageModel>(&mut self, model: &mut M, tokens: &[u32]) -> Result<()> {
        let Some(gpu) = model.gpu() else { return Err(Error::Usage("this model has no kernels".to_owned())) };
        let recorder = gpu.recorder().clone();
        let mut logits = Vec::new();
        for (index, tile) in tokens.chunks(TILE).enumerate() {
            let tile = if tile.len() % 2 == 0 { &tile[..tile.len() - 1] } else { tile };
            logits.clear();
            // With logits, so that the head runs too.
            let buffers = recorder.record(|| model.tile(0, index * TILE, tile, Some(&mut logits)))?;
            let gpu = model.gpu().expect("there was one");
            self.again(gpu, &buffers, tile.len())?;
            self.tiles += 1;
        }
        Ok(())
    }

    /// Runs the dispatches of a tile of `rows` rows again, one by one.
    fn again(&mut self, gpu: &Gpu, buffers: &[Vec<Dispatch>], rows: usize) -> Result<()> {
        let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
        for dispatch in buffers.iter().flatten() {
            let name = dispatch.kernel.name();
            let check = self.checks.kernels.iter().find(|check| gpu.kernel(check.kernel).name() == name);
            if let Some(check) = check {
                self.count(check, dispatch, rows, &mut turns);
            }
            let pending = pool(|| {
                let mut commands = gpu.commands("imatrix");
                dispatch.encode(&mut commands);
                commands.commit()
            });
            pending.wait()?;
        }
        Ok(())
    }

    /// Counts what a dispatch is about to read, where it multiplies by weights. `turns` are dispatches so far of each field.
    fn count<'b>(
        &mut self,
        check: &'b KernelCheck,
        dispatch: &Dispatch,
        rows: usize,
        turns: &mut BTreeMap<&'b str, usize>,
    ) {
        let bound = |role: Role| {
            let place = check.arguments.iter().position(|argument| argument.role == role)?;
            Some((&check.arguments[place], &dispatch.arguments[place]))
        };
        let input = || bound(Role::Input).expect("products have an input").1;
        // Matrices over the input, their columns, how many such matrices a stack has, and each row with its matrix.
        let (cols, stack, seen): (usize, usize, Vec<(usize, usize)>) = match &check.operation {
            Operation::Project(projection) => (projection.matrices[0].cols, 1, (0..rows).map(|row| (row, 0)).collect()),
            Operation::ExpertsUp(experts) => {
                let pairs = pairs(dispatch, bound(Role::Pairs), bound(Role::Tiles));
                let of_row = |(pair, expert): (usize, usize)| (pair / experts.chosen, expert);
                (experts.matrices[0].cols, experts.experts, pairs.into_iter().map(of_row).collect())
            }
            Operation::ExpertsDown(experts) => {
                let pairs = pairs(dispatch, bound(Role::Pairs), bound(Role::Tiles));
                (experts.matrix.cols, experts.experts, pairs)
            }
            // Products of heads are over parts of a latent or make one: no column of these is an input of its own.
            Operation::LatentQueries(_) | Operation::LatentExpand(_) | Operation::LatentValues(_) => return,
            Operation::Embed { .. }
            | Operation::LayerInputs { .. }
            | Operation::RopeAppend(_)
            | Operation::ShortConv { .. }
            | Operation::GatedDelta(_)
            | Operation::HeadGate { .. }
            | Operation::Attention(_)
            | Operation::AttentionCombine { .. }
            | Operation::LatentAppend(_)
            | Operation::LatentAttention(_)
            | Operation::LatentRotate(_)
            | Operation::RowScale { .. }
            | Operation::RmsNorm { .. }
            | Operation::LayerNorm { .. }
            | Operation::PostNorm { .. }
            | Operation::Route { .. }
            | Operation::SortExperts(_)
            | Operation::ExpertsSum { .. }
            | Operation::SampleBest(_)
            | Operation::SampleCollect(_)
            | Operation::SampleDraw(_) => return,
        };
        let input = floats(input());
        for argument in check.arguments {
            let Some(field) = weights_field(argument) else { continue };
            let turn = turns.entry(field).or_default();
            let tensor = self.tensors[field][*turn % self.tensors[field].len()].clone();
            *turn += 1;
            let empty = || Sums { squares: vec![0.0; stack * cols], counts: vec![0; stack] };
            let sums = self.sums.entry(tensor).or_insert_with(empty);
            for &(row, matrix) in &seen {
                sums.add(matrix, &input[row * cols..][..cols]);
            }
        }
    }

    /// Name, `[matrices, cols]` sums and `[matrices]` counts of every matrix that was multiplied by, by name.
    pub fn entries(&self) -> BTreeMap<String, (Vec<f32>, Vec<f32>)> {
        let mut entries = BTreeMap::new();
        for (tensor, sums) in &self.sums {
            let (layer, field) = field(tensor);
            let names = self.checks.matrices.iter().find(|(known, _)| *known == field);
            for name in names.map_or(&[][..], |(_, names)| names) {
                let prefix = layer.map_or_else(String::new, |layer| format!("blk.{layer}."));
                let squares = sums.squares.iter().map(|sum| *sum as f32).collect();
                let counts = sums.counts.iter().map(|count| *count as f32).collect();
                entries.insert(format!("{prefix}{name}.weight"), (squares, counts));
            }
        }
        entries
    }

    /// Writes the file; `text` is what it was made of, for those who read it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&gguf(&self.entries(), text, self.tiles as u32))?;
            file.flush()
        };
        write().map_err(|source| Error::Io { path: path.to_owned(), source })
    }
}

/// The field of weights that an input is multiplied by.
fn weights_field(argument: &Argument<'static>) -> Option<&'static str> {
    match (argument.role, argument.data) {
        (Role::Weights | Role::Weights1 | Role::Weights2, Data::Tensor(tensor)) => Some(field(tensor).1),
        _ => None,
    }
}

/// The pairs of a row and an expert that a dispatch runs: pair and expert.
fn pairs(
    dispatch: &Dispatch,
    pairs: Option<(&Argument<'_>, &Slice)>,
    tiles: Option<(&Argument<'_>, &Slice)>,
) -> Vec<(usize, usize)> {
    let (Some((_, pairs)), Some((_, tiles)), Some(counts)) = (pairs, tiles, &dispatch.counts) else {
        return Vec::new();
    };
    let (pairs, tiles, groups) = (pairs.words(), tiles.words(), counts.words());
    let tiles = tiles.as_chunks::<3>().0.iter().take(groups[1] as usize);
    let of_tile = |[expert, first, count]: &[u32; 3]| {
        let own = pairs[*first as usize..][..*count as usize].to_vec();
        let expert = *expert as usize;
        own.into_iter().map(move |pair| (pair as usize, expert))
    };
    tiles.flat_map(of_tile).collect()
}

fn floats(slice: &Slice) -> Vec<f32> {
    slice.words().into_iter().map(f32::from_bits).collect()
}

/// A GGUF of these matrices (llama.cpp, tools/imatrix: keys and names; GGUF 3: the container).
fn gguf(entries: &BTreeMap<String, (Vec<f32>, Vec<f32>)>, text: &str, tiles: u32) -> Vec<u8> {
    const UINT32: u32 = 4;
    const STRING: u32 = 8;
    const ARRAY: u32 = 9;
    const ALIGNMENT: usize = 32;
    fn string(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }
    fn key(out: &mut Vec<u8>, name: &str, kind: u32) {
        string(out, name);
        out.extend(kind.to_le_bytes());
    }
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((2 * entries.len() as u64).to_le_bytes());
    out.extend(4_u64.to_le_bytes());
    key(&mut out, "general.type", STRING);
    string(&mut out, "imatrix");
    key(&mut out, "imatrix.datasets", ARRAY);
    out.extend(STRING.to_le_bytes());
    out.extend(1_u64.to_le_bytes());
    string(&mut out, text);
    key(&mut out, "imatrix.chunk_count", UINT32);
    out.extend(tiles.to_le_bytes());
    key(&mut out, "imatrix.chunk_size", UINT32);
    out.extend((TILE as u32).to_le_bytes());
    let mut data: Vec<u8> = Vec::new();
    for (name, (squares, counts)) in entries {
        for (suffix, numbers, cols) in [("in_sum2", squares, squares.len() / counts.len()), ("counts", counts, 1)] {
            string(&mut out, &format!("{name}.{suffix}"));
            out.extend(2_u32.to_le_bytes());
            out.extend((cols as u64).to_le_bytes());
            out.extend((counts.len() as u64).to_le_bytes());
            // F32.
            out.extend(0_u32.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
        }
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend(data);
    out
}
