//! SentencePiece BPE (GGUF's `llama` and `gemma4` tokenizers, `tokenizer.model` files) as a tokenizer.json.
//!
//! Gemma 4's GGUFs list their merges. SentencePiece has no such list: it joins the neighbours whose joined piece scores highest, the leftmost where
//! several score the same. The merges reconstructed here rank every way to join two pieces into a third by that
//! third's score.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::processor::{Affixes, template_processing};
use super::vocabulary::{Token, TokenType, added_tokens, vocab_object};

/// What SentencePiece writes for a space.
pub(super) const SPACE: &str = "\u{2581}";
/// Longest piece that merges make, in bytes: SentencePiece's trainer allows 512 characters. Longer ones are user-defined and
/// found in a text before merges.
const LONGEST_PIECE: usize = 2048;
/// Bytes of merges per byte of the vocabulary; real vocabularies have less than 10.
const MERGE_BYTES: usize = 64;
/// Bytes of merges that the smallest vocabulary may have.
const LEAST_MERGE_BYTES: usize = 1 << 20;

/// What happens to a text around the model, as parts of a tokenizer.json.
pub(super) struct Surroundings {
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    pub decoders: Vec<Value>,
    /// User-defined pieces are cut out by `pre_tokenizer`, not found before everything else as added tokens are.
    pub user_defined_apart: bool,
}

impl Surroundings {
    /// As llama.cpp has it: what is between added tokens begins with a space of its own where `add_space_prefix` says so.
    pub fn of_llama_cpp(add_space_prefix: bool) -> Self {
        let replace = replace(" ", SPACE);
        let normalizer = if add_space_prefix {
            json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
        } else {
            replace
        };
        let decoders = decoders(usize::from(add_space_prefix));
        Self { normalizer, pre_tokenizer: Value::Null, decoders, user_defined_apart: false }
    }
}

/// A `Replace` of one string by another.
pub(super) fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

/// The decoders of a SentencePiece vocabulary; up to `strip` spaces go from the beginning of a text.
pub(super) fn decoders(strip: usize) -> Vec<Value> {
    let mut decoders = vec![replace(SPACE, " "), json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    if strip > 0 {
        decoders.push(json!({"type": "Strip", "content": " ", "start": strip, "stop": 0}));
    }
    decoders
}

/// The tokenizer.json of a SentencePiece BPE vocabulary.
///
/// # Errors
/// What is wrong with the vocabulary.
pub(super) fn sentencepiece_bpe(
    tokens: &[Token],
    surroundings: Surroundings,
    affixes: &Affixes,
) -> Result<Value, String> {
    Ok(with_merges(tokens, &merges(tokens)?, surroundings, affixes))
}

/// The same where the merges are known, in order of priority.
pub(super) fn with_merges(
    tokens: &[Token],
    merges: &[(&str, &str)],
    surroundings: Surroundings,
    affixes: &Affixes,
) -> Value {
    let byte_fallback = tokens.iter().any(|token| token.kind == TokenType::Byte);
    let unknown = tokens.iter().find(|token| token.kind == TokenType::Unknown);
    let unknown = unknown.or_else(|| tokens.iter().find(|token| token.text == "<unk>"));
    let is_added = |token: &Token| match token.kind {
        TokenType::Control | TokenType::Unknown => true,
        TokenType::UserDefined => !surroundings.user_defined_apart,
        TokenType::Normal | TokenType::Unused | TokenType::Byte => false,
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added_tokens(tokens, is_added),
        "normalizer": surroundings.normalizer,
        "pre_tokenizer": surroundings.pre_tokenizer,
        "post_processor": template_processing(affixes),
        "decoder": {"type": "Sequence", "decoders": surroundings.decoders},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": unknown.map(|token| &token.text),
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": true,
            "byte_fallback": byte_fallback,
            // A user-defined piece that was cut out is a token, whether or not merges lead to it. So is the written name of a
            // byte piece between two of them, which SentencePiece would spell; no text is known to have that.
            "ignore_merges": surroundings.user_defined_apart,
            "vocab": vocab_object(tokens),
            "merges": merges,
        },
    })
}

/// Two pieces that join into a third.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    score: f32,
}

/// Every way to join two pieces of the vocabulary into a third, best score first; equal scores as [`leftmost_first`]
/// has them, else in the order of transformers' converter: the longer left part first, then the longer right one, then
/// the vocabulary's order.
///
/// # Errors
/// Pieces that can be joined in so many ways that the vocabulary is none of SentencePiece's making.
fn merges(tokens: &[Token]) -> Result<Vec<(&str, &str)>, String> {
    let takes_part = |token: &&Token| {
        matches!(token.kind, TokenType::Normal | TokenType::UserDefined | TokenType::Unused)
            && token.text.len() <= LONGEST_PIECE
    };
    let most = LEAST_MERGE_BYTES + MERGE_BYTES * tokens.iter().map(|token| token.text.len()).sum::<usize>();
    let mut bytes = 0;
    let mut ids: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
    for (id, token) in tokens.iter().enumerate().filter(|(_, token)| takes_part(token)) {
        ids.entry(&token.text).or_insert(id);
    }
    let mut found: Vec<Merge<'_>> = Vec::new();
    for token in tokens.iter().filter(takes_part) {
        let cuts = token.text.char_indices().skip(1).map(|(at, _)| token.text.split_at(at));
        let mut pairs: Vec<_> =
            cuts.filter(|(left, right)| ids.contains_key(left) && ids.contains_key(right)).collect();
        pairs.sort_by_key(|(left, right)| (ids[left], ids[right]));
        bytes += token.text.len() * pairs.len();
        if bytes > most {
            return Err(format!("expected merges of at most {most} bytes in all, found more"));
        }
        found.extend(pairs.into_iter().map(|(left, right)| Merge { left, right, score: token.score }));
    }
    let chars = |text: &str| text.chars().count();
    found.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then_with(|| chars(b.left).cmp(&chars(a.left))).then_with(|| chars(b.right).cmp(&chars(a.right)))
    });
    let ties = found.chunk_by(|a, b| a.score.total_cmp(&b.score).is_eq());
    Ok(ties.flat_map(leftmost_first).map(|merge| (merge.left, merge.right)).collect())
}

/// Orders merges of one score so that BPE, which takes the best rank anywhere, does as SentencePiece, which takes the
/// leftmost: where two can compete for a piece, that whose right part it is comes before that whose left part it is.
/// Merges that compete in a circle keep their order; no order is right for those.
fn leftmost_first<'a>(ties: &[Merge<'a>]) -> Vec<Merge<'a>> {
    let mut by_left: HashMap<&str, Vec<usize>> = HashMap::new();
    // Merges not yet in order by their right part, a piece joined to itself left out: it does not wait for itself. Counted
    // by piece, as pairs of merges that compete can be as many as the square of the merges.
    let mut awaited: HashMap<&str, usize> = HashMap::new();
    for (index, merge) in ties.iter().enumerate() {
        by_left.entry(merge.left).or_default().push(index);
        if merge.left != merge.right {
            *awaited.entry(merge.right).or_default() += 1;
        }
    }
    let waits = |awaited: &HashMap<&str, usize>, merge: &Merge<'a>| awaited.get(merge.left).is_some_and(|&n| n > 0);
    // A piece joined to itself competes with what begins with it, and those wait for it.
    let mut selves: BTreeSet<&str> = ties.iter().filter(|merge| merge.left == merge.right).map(|m| m.left).collect();
    let is_ready = |awaited: &HashMap<&str, usize>, selves: &BTreeSet<&str>, merge: &Merge<'a>| {
        !waits(awaited, merge) && (merge.left == merge.right || !selves.contains(merge.left))
    };
    let mut ready: BTreeSet<usize> = (0..ties.len()).filter(|&i| is_ready(&awaited, &selves, &ties[i])).collect();
    let mut left: BTreeSet<usize> = (0..ties.len()).collect();
    let mut ordered = Vec::with_capacity(ties.len());
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        left.remove(&next);
        let merge = ties[next];
        ordered.push(merge);
        if merge.left == merge.right {
            selves.remove(merge.left);
        } else if let Some(count) = awaited.get_mut(merge.right) {
            *count -= 1;
        }
        // At most twice per piece is anything released: when nothing else is awaited, and when its own doubling is done.
        if awaited.get(merge.right).is_none_or(|&n| n == 0) {
            let followers = by_left.get(merge.right).map_or(&[][..], Vec::as_slice);
            let released = followers.iter().filter(|&&i| left.contains(&i) && is_ready(&awaited, &selves, &ties[i]));
            ready.extend(released);
        }
    }
    ordered
}

#[cfg(test)]
mod tests {
    use tokenizers::Tokenizer;

    use super::*;

    /// SentencePiece's own rule: join the neighbours of the best score, the leftmost of equals, until none join.
    fn reference(tokens: &[Token], text: &str) -> Vec<String> {
        let mut symbols: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let mut best: Option<(usize, f32)> = None;
            for at in 1..symbols.len() {
                let joined = format!("{}{}", symbols[at - 1], symbols[at]);
                let score = tokens.iter().find(|token| token.text == joined).map(|token| token.score);
                if let Some(score) = score.filter(|&score| best.is_none_or(|(_, known)| score > known)) {
                    best = Some((at, score));
                }
            }
            let Some((at, _)) = best else { return symbols };
            let right = symbols.remove(at);
            symbols[at - 1].push_str(&right);
        }
    }

    fn check(tokens: &[Token], texts: impl Iterator<Item = String>) {
        let json =
            sentencepiece_bpe(tokens, Surroundings::of_llama_cpp(false), &Affixes::default()).expect("a vocabulary");
        let tokenizer = Tokenizer::from_bytes(json.to_string()).expect("a tokenizer");
        for text in texts {
            let found = tokenizer.encode(text.as_str(), false).expect("encodes").get_tokens().to_vec();
            assert_eq!(found, reference(tokens, &text), "{text}");
        }
    }

    /// Numbers from a linear congruential generator (Knuth's MMIX constants).
    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % below
    }

    fn text(state: &mut u64, letters: &str, len: usize) -> String {
        let letters: Vec<char> = letters.chars().collect();
        (0..len).map(|_| letters[random(state, letters.len() as u64) as usize]).collect()
    }

    fn vocabulary(pieces: &[(&str, f32)]) -> Vec<Token> {
        let token = |&(text, score): &(&str, f32)| Token { text: text.to_owned(), kind: TokenType::Normal, score };
        pieces.iter().map(token).collect()
    }

    #[test]
    fn bpe_joins_as_sentencepiece_does() {
        let mut state = 7;
        for _ in 0..50 {
            let mut pieces: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
            for _ in 0..30 {
                let len = 2 + random(&mut state, 4) as usize;
                let piece = text(&mut state, "abc", len);
                if !pieces.contains(&piece) {
                    pieces.push(piece);
                }
            }
            // A piece without parts in the vocabulary can never be joined; scores fall as in trained models.
            let scored: Vec<(&str, f32)> =
                pieces.iter().enumerate().map(|(id, text)| (text.as_str(), -(id as f32))).collect();
            let tokens = vocabulary(&scored);
            check(&tokens, (0..20).map(|_| text(&mut state, "abc", 24)));
        }
    }

    #[test]
    fn equal_scores_join_from_the_left() {
        let tokens =
            vocabulary(&[("c", 0.0), ("b", 0.0), ("a", 0.0), ("d", 0.0), ("cd", -1.0), ("bc", -1.0), ("ab", -1.0)]);
        let mut state = 3;
        check(&tokens, (0..200).map(|_| text(&mut state, "abcd", 16)));
    }
}
