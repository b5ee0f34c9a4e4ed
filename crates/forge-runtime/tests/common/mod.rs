//! What the tests share: real tokenizers as fixtures, and a model that is a hash function.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_runtime::assets::Text;
use forge_runtime::batch::{self, Outcome, Row, Slot, Step, Token, Wants};
use forge_runtime::gpu::{KernelSpec, Source};
use forge_runtime::sampler::{Sampler, Sampling};
use forge_runtime::spec::Param;
use forge_runtime::state::SlotState;
use forge_runtime::tune::Tuning;
use forge_runtime::{Assets, Error, LanguageModel, ModelInfo, Result};
use sha2::{Digest, Sha256};

/// What a log wrote.
#[derive(Clone, Default)]
pub struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no panic").clone()).expect("UTF-8")
    }

    pub fn lines(&self) -> Vec<String> {
        self.text().lines().map(str::to_owned).collect()
    }
}

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub fn fixture(model: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(model).join(file)
}

pub fn read(model: &str, file: &str) -> &'static [u8] {
    let path = fixture(model, file);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).leak()
}

pub fn assets(model: &str) -> Assets {
    let utf8 = |file| std::str::from_utf8(read(model, file)).expect("fixtures are UTF-8");
    Assets {
        tokenizer: read(model, "tokenizer.json"),
        chat_template: Some(utf8("chat_template.jinja")),
        generation: utf8("generation.json"),
        project: env!("CARGO_MANIFEST_DIR"),
        weights: None,
    }
}

pub fn text(model: &str) -> Arc<Text> {
    Arc::new(Text::load(&assets(model)).expect("fixtures load"))
}

/// Nothing to tune.
pub static NO_TUNING: Tuning = Tuning { source: &Source::text("tuning.metal", ""), kernels: &[], shapes: &[] };

/// `struct StepParams` in MSL.
pub fn step_params() -> String {
    let word = |param: Param| format!("    {} {};\n", if param.is_float() { "float" } else { "uint" }, param.name());
    format!("struct StepParams {{\n{}}};\n", Param::ALL.into_iter().map(word).collect::<String>())
}

pub const VOCAB: usize = 2048;
pub const TILE: usize = 8;

pub static INFO: ModelInfo = ModelInfo {
    name: "hash-model",
    architecture: "hash",
    source: "nothing",
    vocab_size: VOCAB,
    trained_context: 512,
    default_context: 256,
    parameters: 1,
    weights_bytes: 0,
    weights_header_sha256: "",
    slots: 1,
    few_rows: 1,
    rewind: None,
    kv_bytes_per_token: 1,
    activation_bytes: 1,
    activation_bytes_per_token: 0,
    recurrent_bytes: 0,
    prefill_tile: TILE,
    kernels: &[],
};

/// A weights file with a gamma of 32, two matrices of 8 rows of 32 and the numbers of an activation, and a description of the program it belongs to.
pub fn weights_file(folder: &Path, kernels: &'static [KernelSpec]) -> (PathBuf, &'static ModelInfo) {
    let mut header = br#"{"gamma":{"dtype":"F32","shape":[32],"data_offsets":[0,128]},"matrix":{"dtype":"F32","shape":[8,32],"data_offsets":[128,1152]},"other":{"dtype":"F32","shape":[8,32],"data_offsets":[1152,2176]},"numbers":{"dtype":"F32","shape":[4],"data_offsets":[2176,2192]}}"#.to_vec();
    header.resize(header.len().next_multiple_of(256) - 8, b' ');
    let mut bytes = [&(header.len() as u64).to_le_bytes()[..], &header].concat();
    let digest: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.extend((0..544).flat_map(|i| ((i as f32 * 0.37).sin()).to_le_bytes()));
    bytes.extend([0.7f32, 0.9, 0.4, -0.25].iter().flat_map(|number| number.to_le_bytes()));
    let path = folder.join("weights.safetensors");
    std::fs::write(&path, &bytes).expect("writes");
    let info = ModelInfo {
        weights_bytes: bytes.len() as u64,
        weights_header_sha256: digest.leak(),
        kernels,
        trained_context: 512,
        ..INFO
    };
    (path, Box::leak(Box::new(info)))
}

/// Logits are a hash of the tokens so far, so that every token counts. With a script, the tokens after a prompt are the script's.
#[derive(Default)]
pub struct HashModel {
    pub script: Vec<u32>,
    pub context: usize,
    /// Every token chosen is one of so many, from 100 on.
    pub alphabet: Option<u64>,
    /// Time that a step or a tile takes.
    pub pace: Duration,
    /// A token on which the model panics.
    pub panic_on: Option<u32>,
    /// A token on which it does when it is told of it.
    pub panic_on_observed: Option<u32>,
    pub counters: Arc<Counters>,
    pub info: Option<&'static ModelInfo>,
    pub slots: BTreeMap<Slot, Sequence>,
    /// Rows of the steps that were started and not waited for: their state must not be read.
    pub on_their_way: VecDeque<Vec<(Slot, usize)>>,
}

/// What a slot holds.
#[derive(Default, Clone)]
pub struct Sequence {
    pub tokens: Vec<u32>,
    seen: Vec<u32>,
    /// Tokens that it chose since then.
    times: Vec<u32>,
    bias: Vec<(u32, f32)>,
    allowed: Vec<u32>,
    chosen: u32,
    /// Tokens of its prompt, where they were said: the script follows them.
    prompt: usize,
    /// Most positions that were run since the sequence began.
    reached: usize,
}

#[derive(Default)]
pub struct Counters {
    pub tiles: AtomicUsize,
    /// Tokens whose followers were chosen, or their logits asked for.
    pub decoded: AtomicUsize,
    pub prefilled_tokens: AtomicUsize,
    pub copies: AtomicUsize,
    /// Positions whose state was read.
    pub rows_read: AtomicUsize,
    /// What the model was asked for, in order.
    pub calls: Mutex<Vec<Call>>,
}

/// A piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// A step of rows of these slots.
    Step(Vec<Slot>),
    /// A tile of so many tokens of a slot.
    Tile(Slot, usize),
}

impl Counters {
    fn call(&self, call: Call) {
        self.calls.lock().expect("no panic").push(call);
    }

    /// The work so far.
    pub fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("no panic").clone()
    }
}

/// FNV-1a over tokens.
fn hash(tokens: &[u32]) -> u64 {
    tokens.iter().fold(0xcbf2_9ce4_8422_2325, |hash, token| (hash ^ u64::from(*token)).wrapping_mul(0x100_0000_01b3))
}

impl HashModel {
    pub fn new() -> Self {
        Self { context: 256, ..Self::default() }
    }

    pub fn scripted(script: &[u32]) -> Self {
        Self { script: script.to_vec(), ..Self::new() }
    }

    /// One that holds so many sequences.
    pub fn with_slots(slots: usize, rewind: Option<usize>) -> Self {
        Self::with_info(ModelInfo { slots, rewind, ..INFO })
    }

    /// One that holds so many sequences, and runs up to eight of them in a step.
    pub fn of_slots(slots: usize) -> Self {
        Self::with_info(ModelInfo { slots, few_rows: 8, ..INFO })
    }

    pub fn with_info(info: ModelInfo) -> Self {
        Self { info: Some(Box::leak(Box::new(info))), ..Self::new() }
    }

    /// Logits after a position.
    fn row(&self, slot: Slot, position: usize) -> Vec<f32> {
        let hash = hash(&self.slots[&slot].tokens[..=position]);
        let scripted = (position + 1).checked_sub(self.slots[&slot].prompt);
        let wanted = scripted.and_then(|at| self.script.get(at)).copied();
        let logit = |id: u64| {
            let mixed = (hash ^ id.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
            let noise = (mixed >> 40) as f32 / 16_777_216.0 * 8.0;
            let known = self.alphabet.is_none_or(|count| (100..100 + count).contains(&id));
            if wanted == Some(id as u32) {
                100.0
            } else if known {
                noise
            } else {
                -1e9
            }
        };
        (0..VOCAB as u64).map(logit).collect()
    }

    /// What comes of rows that were run.
    fn outcomes(&mut self, rows: &[Row]) -> Vec<Outcome> {
        let outcome = |row: &Row| match &row.wants {
            Wants::Nothing => Outcome::Nothing,
            Wants::Logits => Outcome::Logits(self.row(row.slot, row.position)),
            Wants::Choice(step) => {
                let logits = self.row(row.slot, row.position);
                let sequence = self.slots.entry(row.slot).or_default();
                let mut sampler = Sampler::at(step.clone(), &sequence.bias);
                sequence.seen.iter().for_each(|&token| sampler.observe(token));
                sequence.times.iter().for_each(|&token| sampler.chose(token));
                let allowed = step.masked.then_some(&*sequence.allowed);
                assert!(allowed.is_none_or(|words| words.len() == VOCAB / 32), "a choice among tokens not said");
                let token = sampler.sample_among(&mut logits.clone(), allowed);
                sequence.chosen = token.unwrap_or(sequence.chosen);
                sequence.times.extend(token);
                if step.scored { Outcome::Scored(token, logits) } else { Outcome::Choice(token) }
            }
        };
        rows.iter().map(outcome).collect()
    }

    fn take(&mut self, slot: Slot, token: u32, position: usize) -> Result<()> {
        let rewind = self.info().rewind;
        let Sequence { tokens, reached, .. } = self.slots.entry(slot).or_default();
        assert!(position <= tokens.len(), "positions come in order: {position} after {}", tokens.len());
        if position == 0 {
            *reached = 0;
        }
        // A row that was started before its sequence ended does no harm.
        let whole = rewind.is_none_or(|rewind| *reached - position <= rewind + 1);
        assert!(whole, "position {position} of a sequence whose state is at {reached}");
        *reached = (*reached).max(position + 1);
        tokens.truncate(position);
        if position >= self.context {
            return Err(Error::PromptTooLong { tokens: position + 1, context: self.context });
        }
        assert!((token as usize) < VOCAB);
        assert_ne!(Some(token), self.panic_on, "asked to panic");
        tokens.push(token);
        Ok(())
    }
}

impl LanguageModel for HashModel {
    fn info(&self) -> &'static ModelInfo {
        self.info.unwrap_or(&INFO)
    }

    fn context(&self) -> usize {
        self.context
    }

    fn step(&mut self, rows: &[Row]) -> Result<Step> {
        std::thread::sleep(self.pace);
        assert!((1..=self.info().few_rows).contains(&rows.len()), "{} rows", rows.len());
        self.counters.call(Call::Step(rows.iter().map(|row| row.slot).collect()));
        for row in rows {
            let token = match row.token {
                Token::Known(id) => id,
                Token::Chosen => self.slots[&row.slot].chosen,
            };
            self.take(row.slot, token, row.position)?;
            let count =
                if row.wants == Wants::Nothing { &self.counters.prefilled_tokens } else { &self.counters.decoded };
            count.fetch_add(1, Ordering::SeqCst);
            if batch::is_open(rows) {
                self.slots.entry(row.slot).or_default().allowed.clear();
            }
        }
        self.on_their_way.push_back(rows.iter().map(|row| (row.slot, row.position)).collect());
        if batch::is_open(rows) {
            return Ok(Step::Running { pending: Vec::new(), number: 0, rows: rows.to_vec(), open: true });
        }
        Ok(Step::Done(self.outcomes(rows)))
    }

    fn allow(&mut self, slot: Slot, tokens: &[u32]) {
        self.slots.entry(slot).or_default().allowed = tokens.to_vec();
    }

    fn choose(&mut self, step: Step) -> Result<Step> {
        match step {
            Step::Running { rows, open: true, .. } => Ok(Step::Done(self.outcomes(&rows))),
            Step::Running { .. } => panic!("no step of this model runs on"),
            Step::Done(_) => Ok(step),
        }
    }

    fn tile(&mut self, slot: Slot, position: usize, tokens: &[u32], mut logits: Option<&mut Vec<f32>>) -> Result<()> {
        std::thread::sleep(self.pace);
        self.counters.tiles.fetch_add(1, Ordering::SeqCst);
        self.counters.call(Call::Tile(slot, tokens.len()));
        self.counters.prefilled_tokens.fetch_add(tokens.len(), Ordering::SeqCst);
        for (position, &token) in (position..).zip(tokens) {
            self.take(slot, token, position)?;
            if let Some(logits) = &mut logits {
                logits.extend(self.row(slot, position));
            }
        }
        Ok(())
    }

    fn finish(&mut self, step: Step) -> Result<Vec<Outcome>> {
        self.on_their_way.pop_front();
        match self.choose(step)? {
            Step::Done(outcomes) => Ok(outcomes),
            Step::Running { .. } => panic!("no step of this model runs on"),
        }
    }

    fn observe(&mut self, slot: Slot, prompt: &[u32], chosen: &[u32], sampling: &Sampling) {
        assert!(self.panic_on_observed.is_none_or(|token| !prompt.contains(&token)), "asked to panic");
        let sequence = self.slots.entry(slot).or_default();
        sequence.prompt = prompt.len();
        sequence.seen = [prompt, chosen].concat();
        sequence.times = chosen.to_vec();
        sequence.bias = sampling.logit_bias.clone();
    }

    fn states(&self) -> Vec<SlotState> {
        Vec::new()
    }

    fn copy_slot(&mut self, from: Slot, to: Slot, positions: usize) -> Result<()> {
        self.counters.copies.fetch_add(1, Ordering::SeqCst);
        let Sequence { tokens, reached, .. } = &self.slots[&from];
        let copy = Sequence { tokens: tokens[..positions].to_vec(), reached: *reached, ..Sequence::default() };
        self.slots.insert(to, copy);
        Ok(())
    }

    // The state of a position is its token, and what they come to a hash of them.

    fn read_rows(&mut self, slot: Slot, positions: Range<usize>, rows: &mut Vec<u8>) -> Result<()> {
        let mut written = self.on_their_way.iter().flatten();
        assert!(!written.any(|(of, at)| *of == slot && positions.contains(at)), "{positions:?} are being written");
        self.counters.rows_read.fetch_add(positions.len(), Ordering::SeqCst);
        rows.extend(self.slots[&slot].tokens[positions].iter().flat_map(|token| token.to_le_bytes()));
        Ok(())
    }

    fn write_rows(&mut self, slot: Slot, positions: Range<usize>, rows: &[u8], of: usize) -> Result<()> {
        assert!(rows.len() == 4 * of && positions.len() <= of);
        let tokens = &mut self.slots.entry(slot).or_default().tokens;
        tokens.truncate(positions.start);
        assert_eq!(tokens.len(), positions.start, "positions come in order");
        let token = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        tokens.extend(rows.chunks_exact(4).take(positions.len()).map(token));
        // Where marks count, nothing is known yet of what they come to.
        let reached = if self.info().rewind.is_some() { usize::MAX } else { positions.end };
        self.slots.entry(slot).or_default().reached = reached;
        Ok(())
    }

    fn read_mark(&mut self, slot: Slot, positions: usize, mark: &mut Vec<u8>) -> Result<()> {
        let sequence = &self.slots[&slot];
        assert!(sequence.reached <= positions + 1, "{} positions were run, not {positions}", sequence.reached);
        mark.extend(hash(&sequence.tokens[..positions]).to_le_bytes());
        Ok(())
    }

    fn write_mark(&mut self, slot: Slot, positions: usize, mark: &[u8]) -> Result<()> {
        let sequence = self.slots.get_mut(&slot).expect("its rows are there");
        assert_eq!(mark, hash(&sequence.tokens[..positions]).to_le_bytes(), "a mark of other tokens");
        assert_eq!(sequence.tokens.len(), positions);
        sequence.reached = positions;
        Ok(())
    }
}
