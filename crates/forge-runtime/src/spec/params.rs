//! The parameters of a step: what changes from one to the next, a record for each row.

/// A type that words have.
trait Element {
    /// Whether it is a float.
    const FLOAT: bool;
    /// The word.
    fn bits(self) -> u32;
}

impl Element for u32 {
    const FLOAT: bool = false;
    fn bits(self) -> u32 {
        self
    }
}

impl Element for f32 {
    const FLOAT: bool = true;
    fn bits(self) -> u32 {
        self.to_bits()
    }
}

/// Declares the words of the record once: `StepParams`, its order in memory and what `kernels.metal` says of each.
macro_rules! step_params {
    ($($(#[$doc:meta])* $param:ident, $field:ident: $element:ident, $note:literal $(under $heading:literal)?;)*) => {
        /// The parameters of one row of a step. `kernels.metal` has a struct of the same name with the same words in the same order.
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        pub struct StepParams {
            $($(#[$doc])* pub $field: $element,)*
        }

        /// A word of [`StepParams`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Param {
            $($(#[$doc])* $param,)*
        }

        impl Param {
            /// Every word, in the order of the record.
            pub const ALL: [Self; [$(stringify!($field)),*].len()] = [$(Self::$param),*];

            /// Its name in Rust and in MSL.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$param => stringify!($field),)*
                }
            }

            /// Whether it is a float rather than an unsigned integer.
            pub const fn is_float(self) -> bool {
                match self {
                    $(Self::$param => <$element as Element>::FLOAT,)*
                }
            }

            /// What `kernels.metal` says beside it; empty where its name says it.
            pub const fn note(self) -> &'static str {
                match self {
                    $(Self::$param => $note,)*
                }
            }

            /// What `kernels.metal` says above it and the words that follow it; empty where nothing.
            pub const fn heading(self) -> &'static str {
                match self {
                    $(Self::$param => concat!($($heading)?),)*
                }
            }
        }

        impl StepParams {
            /// The words of the record, in order.
            pub fn words(&self) -> [u32; Param::ALL.len()] {
                [$(Element::bits(self.$field)),*]
            }
        }
    };
}

step_params! {
    /// Position of the row in its sequence.
    Position, position: u32, "of the row in its sequence";
    /// The row's sequence.
    Slot, slot: u32, "its sequence";
    /// Rows of the step; the same in the records of all its rows.
    Rows, rows: u32, "of this step";
    /// Positions from one slot's cache of the whole context to the next's.
    Context, context: u32, "positions of a slot's cache";
    /// The token; [`StepParams::CHOSEN`] for the one that the slot's last step chose.
    Token, token: u32, "0xFFFFFFFF: what the slot's last step chose";
    /// Whether a token is chosen: 1, else 0.
    Chooses, chooses: u32, "whether its next token is chosen";
    /// `1 / temperature`; 0 is greedy.
    InverseTemperature, inverse_temperature: f32, "0: greedy" under "The choice of the next token; see the sampling kernels.";
    /// Divides positive logits of tokens that occurred, and multiplies negative ones.
    RepeatPenalty, repeat_penalty: f32, "";
    /// Taken from logits of tokens that were chosen before.
    PresencePenalty, presence_penalty: f32, "";
    /// Taken from them for each time that they were.
    FrequencyPenalty, frequency_penalty: f32, "";
    /// Whether logits have biases: 1, else 0.
    Biased, biased: u32, "whether logits have biases";
    /// Whether the choice is among tokens that are allowed: 1, else 0.
    Masked, masked: u32, "whether not all tokens are allowed";
    /// Tokens that are kept; 0 keeps all.
    TopK, top_k: u32, "0: all";
    /// Share of the weight that is kept, in units of 2^-24.
    TopP, top_p: u32, "in units of 2^-24";
    /// Least weight that is kept, in units of 2^-24 of the best token's.
    MinP, min_p: u32, "in units of 2^-24";
    /// Lower half of the draws' seed.
    SeedLow, seed_low: u32, "";
    /// Upper half of the draws' seed.
    SeedHigh, seed_high: u32, "";
    /// Lower half of the number of draws so far.
    DrawLow, draw_low: u32, "draws so far";
    /// Upper half of the number of draws so far.
    DrawHigh, draw_high: u32, "";
}

impl StepParams {
    /// Bytes of a row's record.
    pub const BYTES: usize = 4 * Param::ALL.len();

    /// In place of a token: what the last step of the row's slot chose.
    pub const CHOSEN: u32 = u32::MAX;

    /// Bytes from the records of one step of `rows` rows to those of the next: constants may begin at multiples of 256 bytes
    /// on every Metal device.
    pub const fn step_bytes(rows: usize) -> usize {
        (rows * Self::BYTES).next_multiple_of(256)
    }
}
