//! A synthetic Llama checkpoint of a chosen size: random Q8_0 weights with the demo checkpoint's tokenizer.
//!
//! The container is GGUF v3: magic, version, counts, key-value pairs, tensor table, aligned data.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};

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
/// GGML type of F32 tensors.
const TENSOR_F32: u32 = 0;
/// GGML type of Q8_0 tensors: 34 bytes for 32 weights.
const TENSOR_Q8_0: u32 = 8;

/// Sizes of the layers of the synthetic model.
const HIDDEN: u64 = 2048;
const INTERMEDIATE: u64 = 8192;
const HEADS: u32 = 32;
const KV_HEADS: u32 = 8;
const VOCAB: u64 = 2048;

struct Tensor {
    name: String,
    /// Innermost first, as GGUF has it.
    shape: Vec<u64>,
    kind: u32,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let elements: u64 = self.shape.iter().product();
        if self.kind == TENSOR_Q8_0 { elements / 32 * 34 } else { elements * 4 }
    }
}

/// Writes a checkpoint of at least `bytes` bytes to `path`.
///
/// # Errors
/// A demo checkpoint that cannot be understood, or a failed write.
pub fn write(path: &Path, bytes: u64) -> Result<()> {
    let tensors = tensors(bytes);
    let layers = (tensors.len() as u32 - 2) / 9;
    let (tokenizer_count, tokenizer) = tokenizer()?;
    let mut head = Vec::new();
    head.extend_from_slice(b"GGUF");
    head.extend_from_slice(&3_u32.to_le_bytes());
    head.extend_from_slice(&(tensors.len() as u64).to_le_bytes());
    let own: [(&str, Value<'_>); 11] = [
        ("general.architecture", Value::Text("llama")),
        ("general.name", Value::Text("synthetic")),
        ("llama.block_count", Value::Number(layers)),
        ("llama.context_length", Value::Number(2048)),
        ("llama.embedding_length", Value::Number(HIDDEN as u32)),
        ("llama.feed_forward_length", Value::Number(INTERMEDIATE as u32)),
        ("llama.attention.head_count", Value::Number(HEADS)),
        ("llama.attention.head_count_kv", Value::Number(KV_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Value::Float(1e-5)),
        ("llama.rope.freq_base", Value::Float(10000.0)),
        ("llama.vocab_size", Value::Number(VOCAB as u32)),
    ];
    head.extend_from_slice(&(own.len() as u64 + tokenizer_count).to_le_bytes());
    for (key, value) in own {
        put_string(&mut head, key);
        value.put(&mut head);
    }
    head.extend_from_slice(&tokenizer);
    let mut offset = 0_u64;
    for tensor in &tensors {
        put_string(&mut head, &tensor.name);
        head.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for size in &tensor.shape {
            head.extend_from_slice(&size.to_le_bytes());
        }
        head.extend_from_slice(&tensor.kind.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.write_all(&head)?;
    let mut random = Random(1);
    for tensor in &tensors {
        let data = if tensor.kind == TENSOR_F32 {
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

/// Embedding, final norm, and as many layers as it takes.
fn tensors(bytes: u64) -> Vec<Tensor> {
    let kv = HIDDEN / u64::from(HEADS) * u64::from(KV_HEADS);
    let vector = |name: String| Tensor { name, shape: vec![HIDDEN], kind: TENSOR_F32 };
    let matrix = |name: String, cols, rows| Tensor { name, shape: vec![cols, rows], kind: TENSOR_Q8_0 };
    let mut tensors = vec![matrix("token_embd.weight".into(), HIDDEN, VOCAB), vector("output_norm.weight".into())];
    for layer in 0.. {
        if tensors.iter().map(Tensor::bytes).sum::<u64>() >= bytes {
            break;
        }
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        tensors.push(vector(name("attn_norm")));
        tensors.push(vector(name("ffn_norm")));
        tensors.push(matrix(name("attn_q"), HIDDEN, HIDDEN));
        tensors.push(matrix(name("attn_k"), HIDDEN, kv));
        tensors.push(matrix(name("attn_v"), HIDDEN, kv));
        tensors.push(matrix(name("attn_output"), HIDDEN, HIDDEN));
        tensors.push(matrix(name("ffn_gate"), HIDDEN, INTERMEDIATE));
        tensors.push(matrix(name("ffn_up"), HIDDEN, INTERMEDIATE));
        tensors.push(matrix(name("ffn_down"), INTERMEDIATE, HIDDEN));
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
