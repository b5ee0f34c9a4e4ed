//! What the command line and the server know of a model: its constants, and rows that are submitted and waited for.

use std::ops::Range;

use super::batch::{self, Outcome, Part, Row, Slot, Step, Token, Wants};
use super::gpu::{Gpu, KernelSpec};
use super::sampler::{Sampling, StepSampling};
use super::state::{self, SlotState};
use super::weights::Place;
use super::{Error, Result};

/// Constants of one generated model.
#[derive(Debug, Clone, Copy)]
pub struct ModelInfo {
    /// Name of the project, and the model's name in HTTP answers.
    pub name: &'static str,
    /// Architecture family, as the checkpoint calls it.
    pub architecture: &'static str,
    /// File name of the checkpoint that the project was generated from.
    pub source: &'static str,
    /// Rows of logits are this long.
    pub vocab_size: usize,
    /// Tokens of context the model was trained for; the most `--context` may ask for.
    pub trained_context: usize,
    /// Tokens of context that the KV cache holds when `--context` is not given.
    pub default_context: usize,
    /// Weights, counted as numbers.
    pub parameters: u64,
    /// Length of `weights.safetensors` in bytes.
    pub weights_bytes: u64,
    /// SHA-256, in lower-case hexadecimal, of the file's first `8 + n` bytes: length word and header.
    pub weights_header_sha256: &'static str,
    /// Sequences whose state is held side by side.
    pub slots: usize,
    /// Most rows of a step.
    pub few_rows: usize,
    /// Positions by which a sequence can be cut back and gone on with; `None` for any number.
    pub rewind: Option<usize>,
    /// Bytes of KV cache for each token of context, over all layers and slots.
    pub kv_bytes_per_token: u64,
    /// Bytes of every other buffer: activations, partial sums, logits.
    pub activation_bytes: u64,
    /// Bytes of those for each token of context, whatever the slots: keys and values that tiles make of a latent; 0 where they do not.
    pub activation_bytes_per_token: u64,
    /// Bytes of recurrent state of all slots, whatever their lengths; 0 for a model that keeps none. A sequence with some can be
    /// continued from its end, and from nowhere before it: then `rewind` is 0.
    pub recurrent_bytes: u64,
    /// Most tokens that one prefill dispatch works on.
    pub prefill_tile: usize,
    /// Every kernel, in the order of the indices that the schedules use.
    pub kernels: &'static [KernelSpec],
}

impl ModelInfo {
    /// Bytes of GPU memory needed with a KV cache of `context` tokens.
    pub fn memory_bytes(&self, context: usize) -> u64 {
        let per_token = self.kv_bytes_per_token + self.activation_bytes_per_token;
        self.weights_bytes + self.activation_bytes + self.recurrent_bytes + per_token * context as u64
    }
}

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// The weights.
    pub weights: Place,
    /// Tokens of KV cache; the model's default if not given.
    pub context: Option<usize>,
}

impl LoadOptions {
    /// Tokens of KV cache to allocate.
    ///
    /// # Errors
    /// [`Error::ContextOutOfRange`] for 0 and for more than the model was trained for.
    pub fn context_for(&self, info: &ModelInfo) -> Result<usize> {
        let asked = self.context.unwrap_or(info.default_context);
        if (1..=info.trained_context).contains(&asked) {
            Ok(asked)
        } else {
            Err(Error::ContextOutOfRange { asked, trained: info.trained_context })
        }
    }
}

/// Which rows of a prefill want logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// None: the tokens only fill the KV cache.
    None,
    /// The last token's.
    Last,
    /// Every token's.
    All,
}

/// One model with the state of [`ModelInfo::slots`] sequences.
///
/// The positions of a sequence are filled in order. A row at position `p` makes all state of its slot beyond `p` void; position 0
/// starts a new sequence. How far a sequence may be cut back and gone on with is [`ModelInfo::rewind`].
pub trait LanguageModel: Send {
    /// The model's constants.
    fn info(&self) -> &'static ModelInfo;

    /// Tokens that the KV cache holds, of each slot.
    fn context(&self) -> usize;

    /// The device it runs on; `None` for a model without kernels.
    fn gpu(&self) -> Option<&Gpu> {
        None
    }

    /// Starts a step of one to [`ModelInfo::few_rows`] rows of any slots. Each row comes to the same bits whatever rows stand
    /// beside it. The host may start a step before the one before has ended, with [`Token::Chosen`]; a step of which logits are
    /// wanted is waited for. One with a choice that is [masked](StepSampling::masked) is left open.
    ///
    /// # Errors
    /// Rows that [`batch::check`] refuses, and GPU errors.
    fn step(&mut self, rows: &[Row]) -> Result<Step>;

    /// Runs a tile: at most [`ModelInfo::prefill_tile`] tokens of one slot from `position` on, that many at once. `logits` gets
    /// `[vocab]` f32 of each token more.
    ///
    /// # Errors
    /// As [`LanguageModel::step`].
    fn tile(&mut self, slot: Slot, position: usize, tokens: &[u32], logits: Option<&mut Vec<f32>>) -> Result<()>;

    /// Says among which tokens the next choice of a slot is made, a bit each, lowest first: `[vocab / 32]`, rounded up. It is of the step of the slot
    /// that is open, or of the next one that asks; no other is on its way.
    fn allow(&mut self, slot: Slot, tokens: &[u32]);

    /// Has the tokens of an open step chosen, all of whose slots that ask were told among which. Others are returned as they are. Steps
    /// are closed before the next one is started.
    ///
    /// # Errors
    /// GPU errors.
    fn choose(&mut self, step: Step) -> Result<Step>;

    /// Waits for a step; an open one has its tokens chosen first. What came of each row is in their order.
    ///
    /// # Errors
    /// GPU errors.
    fn finish(&mut self, step: Step) -> Result<Vec<Outcome>>;

    /// Says what the choices of a slot's sequence depend on: biases, and for penalties the tokens that occurred so far, which are those of a
    /// prompt and those that were chosen since. No step of the slot is on its way.
    fn observe(&mut self, slot: Slot, prompt: &[u32], chosen: &[u32], sampling: &Sampling);

    /// Bytes that the device has left beside the model and 4 GiB for all else; where it does not say how many it has, 1 GiB.
    fn spare_bytes(&self) -> usize {
        let Some(all) = self.gpu().and_then(|gpu| gpu.limits().working_set_bytes) else { return 1 << 30 };
        let taken = self.info().memory_bytes(self.context()) + (4 << 30);
        usize::try_from(all.saturating_sub(taken)).unwrap_or(usize::MAX)
    }

    /// Where the state of slots lies.
    fn states(&self) -> Vec<SlotState>;

    /// Copies the state of the first `positions` positions of a slot to another, while no step of either is on its way.
    ///
    /// # Errors
    /// GPU errors.
    fn copy_slot(&mut self, from: Slot, to: Slot, positions: usize) -> Result<()> {
        state::copy(&self.states(), from, to, positions);
        Ok(())
    }

    /// Appends the state that positions of a slot have of their own, while no step that writes them is on its way.
    ///
    /// # Errors
    /// GPU errors.
    fn read_rows(&mut self, slot: Slot, positions: Range<usize>, rows: &mut Vec<u8>) -> Result<()> {
        state::read_rows(&self.states(), self.context(), slot, &positions, rows);
        Ok(())
    }

    /// Writes the state of positions of a slot, while no step of it is on its way: the first of the `of` positions that
    /// [`LanguageModel::read_rows`] gave `rows` for.
    ///
    /// # Errors
    /// GPU errors.
    fn write_rows(&mut self, slot: Slot, positions: Range<usize>, rows: &[u8], of: usize) -> Result<()> {
        state::write_rows(&self.states(), self.context(), slot, &positions, rows, of);
        Ok(())
    }

    /// Appends what the first `positions` positions of a slot, which are all that were run, have come to, beside the state that each has of its own. No step of the slot
    /// is on its way.
    ///
    /// # Errors
    /// GPU errors.
    fn read_mark(&mut self, slot: Slot, positions: usize, mark: &mut Vec<u8>) -> Result<()> {
        state::read_mark(&self.states(), self.context(), slot, positions, mark);
        Ok(())
    }

    /// Writes what [`LanguageModel::read_mark`] gave after so many positions.
    ///
    /// # Errors
    /// GPU errors.
    fn write_mark(&mut self, slot: Slot, positions: usize, mark: &[u8]) -> Result<()> {
        state::write_mark(&self.states(), self.context(), slot, positions, mark);
        Ok(())
    }

    /// Runs rows of any slots, any number of each: long runs of known tokens in tiles, the rest in steps. Prompts, decoding,
    /// batches of sequences and the verification of a guessed run are all this. The last step may still be on its way.
    ///
    /// # Errors
    /// As [`LanguageModel::step`].
    fn submit(&mut self, rows: &[Row]) -> Result<Submitted> {
        let (info, context) = (self.info(), self.context());
        batch::check(rows, info.vocab_size, context, info.slots)?;
        let mut submitted = Submitted::default();
        for part in batch::parts(rows, info.few_rows) {
            if let Some(step) = submitted.last.take() {
                submitted.done.extend(self.finish(step)?);
            }
            match part {
                Part::Step(rows) => submitted.last = Some(self.step(rows)?),
                Part::Tile(rows) | Part::TileOfLogits(rows) => {
                    let wanted = matches!(part, Part::TileOfLogits(_));
                    for tile in rows.chunks(info.prefill_tile) {
                        let ids: Vec<u32> = tile.iter().map(Row::known).collect();
                        let mut logits = Vec::new();
                        self.tile(tile[0].slot, tile[0].position, &ids, wanted.then_some(&mut logits))?;
                        if wanted {
                            let rows = logits.chunks_exact(info.vocab_size);
                            submitted.done.extend(rows.map(|row| Outcome::Logits(row.to_vec())));
                        } else {
                            submitted.done.extend(tile.iter().map(|_| Outcome::Nothing));
                        }
                    }
                }
            }
        }
        Ok(submitted)
    }

    /// Waits for what was submitted. What came of each row is in their order.
    ///
    /// # Errors
    /// GPU errors.
    fn wait(&mut self, submitted: Submitted) -> Result<Vec<Outcome>> {
        let Submitted { mut done, last } = submitted;
        if let Some(step) = last {
            done.extend(self.finish(step)?);
        }
        Ok(done)
    }

    /// Runs `tokens` at positions `position..position + tokens.len()` of a slot and appends the wanted logits rows, `[vocab]` f32
    /// each, to `logits`. `keep_going` is asked once per tile of at most [`ModelInfo::prefill_tile`] tokens.
    ///
    /// # Errors
    /// [`Error::Cancelled`] once `keep_going` says no, [`Error::PromptTooLong`] past the context, and GPU errors. After an
    /// error the sequence has to be started again.
    fn prefill(
        &mut self,
        slot: Slot,
        position: usize,
        tokens: &[u32],
        wanted: LogitRows,
        logits: &mut Vec<f32>,
        keep_going: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let mut rows = Row::run(slot, position, tokens);
        let from = match wanted {
            LogitRows::None => rows.len(),
            LogitRows::Last => rows.len().saturating_sub(1),
            LogitRows::All => 0,
        };
        rows[from..].iter_mut().for_each(|row| row.wants = Wants::Logits);
        // Before anything is run, rather than tile by tile.
        batch::check(&rows, self.info().vocab_size, self.context(), self.info().slots)?;
        for tile in rows.chunks(self.info().prefill_tile) {
            if !keep_going() {
                return Err(Error::Cancelled);
            }
            let submitted = self.submit(tile)?;
            for outcome in self.wait(submitted)? {
                if let Outcome::Logits(row) = outcome {
                    logits.extend_from_slice(&row);
                }
            }
        }
        Ok(())
    }

    /// Runs one token at `position` of a slot and replaces `logits` by its row, `[vocab]` f32.
    ///
    /// # Errors
    /// As [`LanguageModel::step`].
    fn decode(&mut self, slot: Slot, position: usize, token: u32, logits: &mut Vec<f32>) -> Result<()> {
        logits.clear();
        self.prefill(slot, position, &[token], LogitRows::Last, logits, &mut || true)
    }

    /// Decodes `token` at `position` of a slot, chooses the next token, decodes that, and so on, a step ahead of the host.
    /// `listener` gets every chosen token and says whether to go on; the context's end stops it too. `observed` are the tokens so
    /// far, for the repeat penalty. Returns the positions that hold the sequence then: the last chosen token is not decoded.
    ///
    /// # Errors
    /// As [`LanguageModel::step`], and [`Error::NonFiniteLogits`].
    fn generate(
        &mut self,
        slot: Slot,
        position: usize,
        token: u32,
        sampling: &Sampling,
        observed: &[u32],
        listener: &mut dyn FnMut(u32) -> bool,
    ) -> Result<usize> {
        self.observe(slot, observed, &[], sampling);
        let mut sampling = StepSampling::new(sampling);
        let row = |token, position, sampling: &StepSampling| {
            [Row { token, slot, position, wants: Wants::Choice(sampling.clone()) }]
        };
        let mut position = position;
        let mut current = self.submit(&row(Token::Known(token), position, &sampling))?;
        loop {
            // The next step is on its way before this one's token is known.
            position += 1;
            sampling.advance();
            let ahead = position < self.context();
            let next = ahead.then(|| self.submit(&row(Token::Chosen, position, &sampling))).transpose()?;
            let chosen = self.wait(current)?.pop().and_then(|outcome| outcome.choice()).flatten();
            let go_on = chosen.is_some_and(&mut *listener);
            match next {
                Some(next) if go_on => current = next,
                next => {
                    next.map(|next| self.wait(next)).transpose()?;
                    return chosen.map(|_| position).ok_or(Error::NonFiniteLogits { position });
                }
            }
        }
    }
}

/// What was submitted: what is done of it, and the step that may still be on its way.
#[must_use = "what was submitted has to be waited for"]
#[derive(Default)]
pub struct Submitted {
    done: Vec<Outcome>,
    last: Option<Step>,
}

impl<M: LanguageModel + ?Sized> LanguageModel for Box<M> {
    fn info(&self) -> &'static ModelInfo {
        (**self).info()
    }

    fn context(&self) -> usize {
        (**self).context()
    }

    fn gpu(&self) -> Option<&Gpu> {
        (**self).gpu()
    }

    fn step(&mut self, rows: &[Row]) -> Result<Step> {
        (**self).step(rows)
    }

    fn tile(&mut self, slot: Slot, position: usize, tokens: &[u32], logits: Option<&mut Vec<f32>>) -> Result<()> {
        (**self).tile(slot, position, tokens, logits)
    }

    fn finish(&mut self, step: Step) -> Result<Vec<Outcome>> {
        (**self).finish(step)
    }

    fn allow(&mut self, slot: Slot, tokens: &[u32]) {
        (**self).allow(slot, tokens);
    }

    fn choose(&mut self, step: Step) -> Result<Step> {
        (**self).choose(step)
    }

    fn observe(&mut self, slot: Slot, prompt: &[u32], chosen: &[u32], sampling: &Sampling) {
        (**self).observe(slot, prompt, chosen, sampling);
    }

    fn states(&self) -> Vec<SlotState> {
        (**self).states()
    }

    fn copy_slot(&mut self, from: Slot, to: Slot, positions: usize) -> Result<()> {
        (**self).copy_slot(from, to, positions)
    }

    fn read_rows(&mut self, slot: Slot, positions: Range<usize>, rows: &mut Vec<u8>) -> Result<()> {
        (**self).read_rows(slot, positions, rows)
    }

    fn write_rows(&mut self, slot: Slot, positions: Range<usize>, rows: &[u8], of: usize) -> Result<()> {
        (**self).write_rows(slot, positions, rows, of)
    }

    fn read_mark(&mut self, slot: Slot, positions: usize, mark: &mut Vec<u8>) -> Result<()> {
        (**self).read_mark(slot, positions, mark)
    }

    fn write_mark(&mut self, slot: Slot, positions: usize, mark: &[u8]) -> Result<()> {
        (**self).write_mark(slot, positions, mark)
    }
}
