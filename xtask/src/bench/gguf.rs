//! Synthetic Llama checkpoints: random Q8_0 weights of a chosen size, or the shapes of a real model without any data, with
//! the demo checkpoint's tokenizer. And quantised checkpoints as floats.
//!
//! The container is GGUF v3: magic, version, counts, key-value pairs, tensor table, aligned data.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use forge_formats::{Format, decode_row, encode_row};
use forge_frontend::checkpoint::{GgufFile, GgufTensor};

use crate::{demo, shell};

/// Alignment of the data and of every tensor.
const ALIGNMENT: u64 = 32;
/// GGUF type of an unsigned 32-bit value.
const U32: u32 = 4;
/// GGUF type of a float.
const F32: u32 = 6;
/// GGUF type of a string.
const STRING: u32 = 8;
/// GGUF type of an array.
const ARRAY: u32 = 9;
/// A tensor's type: GGML's number, elements of a block and its bytes.
type Kind = (u32, u64, u64);

const F32_TENSOR: Kind = (0, 1, 4);
const F16_TENSOR: Kind = (1, 1, 2);
const Q4_0: Kind = (2, 32, 18);
const Q8_0: Kind = (8, 32, 34);
const Q4_K: Kind = (12, 256, 144);
const Q6_K: Kind = (14, 256, 210);

/// What the matrices of a checkpoint are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// All Q8_0.
    Q8,
    /// Q4_0, the head Q6_K.
    Q4,
    /// Q4_K and Q6_K as llama.cpp's Q4_K_M mixes them.
    Q4KM,
    /// All F16.
    F16,
}

/// Sizes of a synthetic model.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Width of the residual stream.
    pub hidden: u64,
    /// Width of the MLP.
    pub intermediate: u64,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Rows of the embedding; the tokenizer has fewer.
    pub vocab: u64,
    /// Longest context.
    pub context: u32,
    /// Whether the head is a matrix of its own.
    pub head: bool,
    /// Formats.
    pub mix: Mix,
}

/// The model whose layers fill a checkpoint of a given size.
const SMALL: Sizes = Sizes {
    hidden: 2048,
    intermediate: 8192,
    heads: 32,
    kv_heads: 8,
    vocab: 2048,
    context: 2048,
    head: false,
    mix: Mix::Q8,
};

struct Tensor {
    name: String,
    /// Innermost first, as GGUF has it.
    shape: Vec<u64>,
    kind: Kind,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let (_, elements, bytes) = self.kind;
        self.shape.iter().product::<u64>() / elements * bytes
    }
}

/// Writes a checkpoint of at least `bytes` bytes to `path`.
///
/// # Errors
/// A demo checkpoint that cannot be understood, or a failed write.
pub fn write(path: &Path, bytes: u64) -> Result<()> {
    let layers = (0..).find(|layers| tensors(&SMALL, *layers).iter().map(Tensor::bytes).sum::<u64>() >= bytes);
    let tensors = tensors(&SMALL, layers.unwrap_or(0));
    let mut file = BufWriter::with_capacity(1 << 20, create(path)?);
    file.write_all(&head(&SMALL, &tensors)?)?;
    let mut random = Random(1);
    for tensor in &tensors {
        let data = if tensor.kind == F32_TENSOR {
            1.0_f32.to_le_bytes().repeat(tensor.bytes() as usize / 4)
        } else {
            random.q8_0(tensor.bytes() as usize / 34)
        };
        file.write_all(&data)?;
        let pad = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
        file.write_all(&vec![0; pad as usize])?;
    }
    file.flush()?;
    Ok(())
}

/// Writes a checkpoint of `layers` layers whose data is a hole in the file: enough to plan and render from.
///
/// # Errors
/// As [`write`].
pub fn write_hollow(path: &Path, sizes: &Sizes, layers: u64) -> Result<()> {
    let tensors = tensors(sizes, layers);
    let head = head(sizes, &tensors)?;
    let data: u64 = tensors.iter().map(|tensor| tensor.bytes().next_multiple_of(ALIGNMENT)).sum();
    let mut file = create(path)?;
    file.write_all(&head)?;
    file.set_len(head.len() as u64 + data)?;
    Ok(())
}

/// Writes the checkpoint that a GGUF file stands for when all of its matrices are F16, its vectors F32; what it says of itself and of its
/// tokenizer is copied.
///
/// # Errors
/// A file that is no GGUF file of known formats, or a failed write.
pub fn write_floats(from: &Path, to: &Path) -> Result<()> {
    let gguf = GgufFile::open(from)?;
    let bytes = fs::read(from)?;
    let mut reader = Reader { bytes: &bytes, at: 16 };
    let pairs = reader.u64()?;
    for _ in 0..pairs {
        reader.string()?;
        let kind = reader.u32()?;
        reader.skip(kind)?;
    }
    let of = |tensor: &GgufTensor| Tensor {
        name: tensor.name.clone(),
        shape: tensor.dims.clone(),
        kind: if tensor.dims.len() > 1 { F16_TENSOR } else { F32_TENSOR },
    };
    let tensors: Vec<Tensor> = gguf.tensors().iter().map(of).collect();
    let mut head = bytes[..8].to_vec();
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    head.extend_from_slice(&bytes[16..reader.at]);
    put_tensors(&mut head, &tensors);
    let mut file = BufWriter::with_capacity(1 << 20, create(to)?);
    file.write_all(&head)?;
    for (stored, tensor) in gguf.tensors().iter().zip(&tensors) {
        let format = match &stored.format {
            Ok(format) => *format,
            Err(error) => bail!("{}: {error}", stored.name),
        };
        let (row, cols) = (gguf.data(stored), tensor.shape[0] as usize);
        let row_bytes = format.row_bytes(cols).context("rows of whole blocks")?;
        let mut weights = vec![0.0; cols];
        for row in row.chunks_exact(row_bytes) {
            decode_row(format, row, &mut weights)?;
            let size = if tensor.kind == F16_TENSOR { Format::F16 } else { Format::F32 };
            let mut out = vec![0; cols * size.block_bytes()];
            encode_row(size, &weights, &mut out)?;
            file.write_all(&out)?;
        }
        let pad = tensor.bytes().next_multiple_of(ALIGNMENT) - tensor.bytes();
        file.write_all(&vec![0; pad as usize])?;
    }
    file.flush()?;
    Ok(())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot create {}", path.display()))
}

/// All before the data.
fn head(sizes: &Sizes, tensors: &[Tensor]) -> Result<Vec<u8>> {
    let layers = tensors.iter().filter(|tensor| tensor.name.ends_with("attn_q.weight")).count() as u32;
    let (tokenizer_count, tokenizer) = tokenizer()?;
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    head.extend_from_slice(&3_u32.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    let own: [(&str, Value<'_>); 11] = [
        ("general.architecture", Value::Text("llama")),
        ("general.name", Value::Text("synthetic")),
        ("llama.block_count", Value::Number(layers)),
        ("llama.context_length", Value::Number(sizes.context)),
        ("llama.embedding_length", Value::Number(sizes.hidden as u32)),
        ("llama.feed_forward_length", Value::Number(sizes.intermediate as u32)),
        ("llama.attention.head_count", Value::Number(sizes.heads)),
        ("llama.attention.head_count_kv", Value::Number(sizes.kv_heads)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
        ("llama.rope.freq_base", Value::Float(10000.0)),
        ("llama.vocab_size", Value::Number(sizes.vocab as u32)),
    ];
    head.extend_from_slice(&(own.len() as u64 + tokenizer_count).to_le_bytes());
    for (key, value) in own {
        put_string(&mut head, key);
        value.put(&mut head);
    }
    head.extend_from_slice(&tokenizer);
    put_tensors(&mut head, tensors);
    Ok(head)
}

/// The tensor table, up to the data.
fn put_tensors(head: &mut Vec<u8>, tensors: &[Tensor]) {
    let mut offset = 0_u64;
    for tensor in tensors {
        put_string(head, &tensor.name);
        head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for size in &tensor.shape {
            head.extend_from_slice(&size.to_le_bytes());
        }
        head.extend_from_slice(&tensor.kind.0.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
}

/// The format of a matrix: `part` is its role, `layer` of `layers` where it is.
fn kind(mix: Mix, part: &str, layer: u64, layers: u64) -> Kind {
    // llama.cpp's `use_more_bits`
    let more = layer < layers / 8 || layer >= 7 * layers / 8 || layer.saturating_sub(layers / 8) % 3 == 2;
    match (mix, part) {
        (Mix::Q8, _) => Q8_0,
        (Mix::F16, _) => F16_TENSOR,
        (_, "output") => Q6_K,
        (Mix::Q4KM, "attn_v" | "ffn_down") if more => Q6_K,
        (Mix::Q4KM, _) => Q4_K,
        (Mix::Q4, _) => Q4_0,
    }
}

/// Embedding, final norm, the head where there is one, and the layers.
fn tensors(sizes: &Sizes, layers: u64) -> Vec<Tensor> {
    let Sizes { hidden, intermediate, vocab, mix, .. } = *sizes;
    let kv = hidden / u64::from(sizes.heads) * u64::from(sizes.kv_heads);
    let vector = |name: String| Tensor { name, shape: vec![hidden], kind: F32_TENSOR };
    let whole = |part: &str, cols, rows| Tensor {
        name: format!("{part}.weight"),
        shape: vec![cols, rows],
        kind: kind(mix, part, 0, layers),
    };
    let mut tensors = vec![whole("token_embd", hidden, vocab), vector("output_norm.weight".into())];
    if sizes.head {
        tensors.push(whole("output", hidden, vocab));
    }
    for layer in 0..layers {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors.extend(["attn_norm", "ffn_norm"].map(|part| vector(name(part))));
        let matrices = [
            ("attn_q", hidden, hidden),
            ("attn_k", hidden, kv),
            ("attn_v", hidden, kv),
            ("attn_output", hidden, hidden),
            ("ffn_gate", hidden, intermediate),
            ("ffn_up", hidden, intermediate),
            ("ffn_down", intermediate, hidden),
        ];
        tensors.extend(matrices.map(|(part, cols, rows)| Tensor {
            name: name(part),
            shape: vec![cols, rows],
            kind: kind(mix, part, layer, layers),
        }));
    }
    tensors
}

enum Value<'a> {
    Text(&'a str),
    Number(u32),
    Float(f32),
}

impl Value<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) => {
                out.extend_from_slice(&STRING.to_le_bytes());
                put_string(out, text);
            }
            Self::Number(number) => {
                out.extend_from_slice(&U32.to_le_bytes());
                out.extend_from_slice(&number.to_le_bytes());
            }
            Self::Float(float) => {
                out.extend_from_slice(&F32.to_le_bytes());
                out.extend_from_slice(&float.to_le_bytes());
            }
        }
    }
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The `tokenizer.*` pairs of the demo checkpoint, as they stand in it, and how many they are.
fn tokenizer() -> Result<(u64, Vec<u8>)> {
    let path = shell::root().join(demo::CHECKPOINT);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut reader = Reader { bytes: &bytes, at: 16 };
    let pairs = reader.u64()?;
    let (mut count, mut out) = (0, Vec::new());
    for _ in 0..pairs {
        let start = reader.at;
        let key = reader.string()?;
        let kind = reader.u32()?;
        reader.skip(kind)?;
        if key.starts_with(b"tokenizer.") {
            count += 1;
            out.extend_from_slice(&bytes[start..reader.at]);
        }
    }
    Ok((count, out))
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at + count).context("the demo checkpoint ends early")?;
        self.at += count;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into()?))
    }

    fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into()?))
    }

    fn string(&mut self) -> Result<&'a [u8]> {
        let length = self.u64()? as usize;
        self.take(length)
    }

    /// Steps over a value of a GGUF type.
    fn skip(&mut self, kind: u32) -> Result<()> {
        match kind {
            0 | 1 | 7 => self.take(1).map(drop),
            2 | 3 => self.take(2).map(drop),
            4..=6 => self.take(4).map(drop),
            10..=12 => self.take(8).map(drop),
            STRING => self.string().map(drop),
            ARRAY => {
                let element = self.u32()?;
                (0..self.u64()?).try_for_each(|_| self.skip(element))
            }
            _ => bail!("GGUF type {kind}"),
        }
    }
}

/// Xorshift: the content does not matter, only that it does not compress.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Blocks of a half scale of 2^-10 and 32 signed bytes.
    fn q8_0(&mut self, blocks: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(blocks * 34);
        for _ in 0..blocks {
            out.extend_from_slice(&0x1400_u16.to_le_bytes());
            for _ in 0..4 {
                out.extend_from_slice(&self.next().to_le_bytes());
            }
        }
        out
    }
}
