//! The pre-tokenizers that `tokenizer.ggml.pre` names, as the `tokenizer.json` files of those models have them.
//!
//! Where llama.cpp's expressions differ from a model's own `tokenizer.json` (llama.cpp's engine knows no `(?i:)` and
//! does not normalise), the model's own is followed.

use serde_json::{Value, json};

/// How a text is cut before BPE merges.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PreTokenizer {
    steps: &'static [Step],
    /// Whether the tokenizer normalises to NFC first.
    nfc: bool,
    /// Whether a whole piece that is in the vocabulary is taken without merging.
    pub ignore_merges: bool,
    /// Whether BOS is added where the checkpoint has no key for it.
    pub add_bos: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Matches of the expression and what is between them become pieces.
    Split(&'static str),
    /// Each digit is a piece.
    Digits,
    /// Runs of punctuation are pieces.
    Punctuation,
    /// GPT-2's expression.
    Gpt2,
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Digits in threes from the right.
const THREES: &str = r"\d{1,3}(?=(?:\d{3})*\b)";
const DEEPSEEK_WORDS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK3: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

const PLAIN: PreTokenizer = PreTokenizer { steps: &[Step::Gpt2], nfc: false, ignore_merges: false, add_bos: false };

/// The pre-tokenizer of a name; `None` for an unknown one.
pub(super) fn pre_tokenizer(name: &str) -> Option<PreTokenizer> {
    let split = |steps| PreTokenizer { steps, ..PLAIN };
    Some(match name {
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "falcon-h1" | "pixtral" | "midm-2.0" | "lfm2" => {
            PreTokenizer { ignore_merges: true, add_bos: true, ..split(&[Step::Split(LLAMA3)]) }
        }
        "dbrx" | "smaug-bpe" | "chatglm-bpe" => split(&[Step::Split(LLAMA3)]),
        "glm4" => PreTokenizer { ignore_merges: true, ..split(&[Step::Split(LLAMA3)]) },
        "qwen2" | "megrez" | "deepseek-r1-qwen" | "kormo" => PreTokenizer { nfc: true, ..split(&[Step::Split(QWEN2)]) },
        "qwen35" => PreTokenizer { nfc: true, ..split(&[Step::Split(QWEN35)]) },
        "stablelm2" | "hunyuan" | "grok-2" | "solar-open" => split(&[Step::Split(QWEN2)]),
        "seed-coder" => split(&[Step::Split(SEED_CODER)]),
        "tiny_aya" => split(&[Step::Split(THREES), Step::Split(GPT4O)]),
        "tekken" => PreTokenizer { ignore_merges: true, add_bos: true, ..split(&[Step::Split(TEKKEN)]) },
        "gpt-4o" | "llama4" | "kanana2" => split(&[Step::Split(GPT4O)]),
        "gpt-2" | "phi-2" | "gigachat" | "mpt" | "olmo" | "jais" | "trillion" | "exaone4" | "mellum" => PLAIN,
        "smollm" | "starcoder" | "refact" | "codeshell" | "exaone" | "minerva-7b" => split(&[Step::Digits, Step::Gpt2]),
        "command-r" => PreTokenizer { nfc: true, ..split(&[Step::Digits, Step::Gpt2]) },
        "falcon" => split(&[Step::Punctuation, Step::Gpt2, Step::Split("[0-9][0-9][0-9]")]),
        "deepseek-llm" => split(&[
            Step::Split(r"[\r\n]"),
            Step::Split(DEEPSEEK_WORDS),
            Step::Split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Step::Split(r"\s+$"),
            Step::Split("[一-龥ࠀ-一가-퟿]+"),
            Step::Digits,
        ]),
        "deepseek-coder" => split(&[
            Step::Split(r"[\r\n]"),
            Step::Split(r"\s?\p{L}+"),
            Step::Split(r"\s?\p{P}+"),
            Step::Split("[一-龥ࠀ-一가-퟿]+"),
            Step::Digits,
        ]),
        "deepseek-v3" | "hunyuan-dense" => {
            split(&[Step::Split(r"\p{N}{1,3}"), Step::Split("[一-龥぀-ゟ゠-ヿ]+"), Step::Split(DEEPSEEK3)])
        }
        _ => return None,
    })
}

impl PreTokenizer {
    /// The `pre_tokenizer` of a tokenizer.json, bytes mapped to GPT-2's characters at the end.
    pub fn pre_tokenizer(&self) -> Value {
        let byte_level = |use_regex| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex});
        let split =
            |regex| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
        let mut steps: Vec<Value> = Vec::new();
        for step in self.steps {
            steps.push(match step {
                Step::Split(regex) => split(*regex),
                Step::Digits => json!({"type": "Digits", "individual_digits": true}),
                Step::Punctuation => json!({"type": "Punctuation", "behavior": "Contiguous"}),
                Step::Gpt2 => byte_level(true),
            });
        }
        if !self.steps.contains(&Step::Gpt2) {
            steps.push(byte_level(false));
        }
        if steps.len() == 1 { steps.remove(0) } else { json!({"type": "Sequence", "pretokenizers": steps}) }
    }

    /// The `normalizer` of a tokenizer.json.
    pub fn normalizer(&self) -> Value {
        if self.nfc { json!({"type": "NFC"}) } else { Value::Null }
    }
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, PreTokenizerWrapper};

    use super::pre_tokenizer;

    /// The pieces of a text, in GPT-2's characters for bytes.
    fn pieces(name: &str, text: &str) -> Vec<String> {
        let json = pre_tokenizer(name).expect("a known name").pre_tokenizer();
        let pre: PreTokenizerWrapper = serde_json::from_value(json).expect("a pre-tokenizer");
        let mut string = PreTokenizedString::from(text);
        pre.pre_tokenize(&mut string).expect("cut");
        let splits = string.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(piece, ..)| piece.replace('\u{120}', " ").replace('\u{10a}', "\n")).collect()
    }

    /// By Python's `regex` on the expressions of the models' tokenizer.json files.
    #[test]
    fn digits_and_line_ends() {
        let text = "Can't 1234567 x;\n\n  y";
        let seed = ["Can", "'t", " ", "1", "2", "3", "4", "5", "6", "7", " x", ";", "\n\n", " ", " y"];
        assert_eq!(pieces("seed-coder", text), seed);
        assert_eq!(pieces("tiny_aya", text), ["Can't", " ", "1", "234", "567", " x", ";\n\n", " ", " y"]);
    }
}
