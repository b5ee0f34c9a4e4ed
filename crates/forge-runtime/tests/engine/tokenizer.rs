//! Tokenizers and chat templates of real checkpoints against ids that transformers computed.

use std::time::{Duration, Instant};

use crate::common;
use common::{read, text};
use forge_runtime::chat_templates::Ending;
use forge_runtime::philox::philox;
use forge_runtime::tokenizer::{Detokenizer, Tokenizer};
use serde_json::{Map, Value};

const MODELS: [&str; 4] = ["llama", "qwen3", "gemma3", "demo"];

fn cases(model: &str) -> Value {
    serde_json::from_slice(read(model, "tokenizer_cases.json")).expect("fixture")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("id") as u32).collect()
}

#[test]
fn strings_as_transformers_has_them() {
    for model in MODELS {
        let text = text(model);
        let cases = cases(model);
        let strings = cases["strings"].as_array().expect("strings");
        assert!(strings.len() >= 18);
        for case in strings {
            let string = case["text"].as_str().expect("text");
            let plain = ids(&case["ids_no_special"]);
            assert_eq!(text.tokenizer.encode(string, true).expect("encodes"), ids(&case["ids"]), "{model}: {string:?}");
            assert_eq!(text.tokenizer.encode(string, false).expect("encodes"), plain, "{model}: {string:?}");
            let decoded = text.tokenizer.decode(&plain, false).expect("decodes");
            assert_eq!(decoded, case["decoded"].as_str().expect("decoded"), "{model}: {string:?}");
        }
    }
}

#[test]
fn chats_as_transformers_has_them() {
    for model in MODELS {
        let text = text(model);
        for case in cases(model)["chats"].as_array().expect("chats") {
            let prompt = case["add_generation_prompt"].as_bool().expect("bool");
            let rendered = text.render_chat(&case["messages"], Ending::from(prompt), &Map::new()).expect("renders");
            assert_eq!(rendered, case["rendered"].as_str().expect("rendered"), "{model}");
            assert_eq!(text.tokenizer.encode(&rendered, false).expect("encodes"), ids(&case["ids"]), "{model}");
        }
    }
}

fn stream(mut detokenizer: Detokenizer<&Tokenizer>, ids: &[u32]) -> Vec<String> {
    let mut pieces: Vec<String> = ids.iter().map(|id| detokenizer.push(*id).expect("decodes")).collect();
    pieces.push(detokenizer.finish().expect("decodes"));
    pieces
}

/// Special tokens that a user wrote out are text, and the text is the same.
#[test]
fn shielded_texts_have_no_special_tokens() {
    for model in MODELS {
        let tokenizer = text(model).tokenizer.clone();
        let specials: Vec<(u32, String)> = (0..tokenizer.vocab_size() as u32)
            .filter(|id| tokenizer.is_special(*id))
            .filter_map(|id| Some((id, tokenizer.token(id)?)))
            .collect();
        assert!(!specials.is_empty(), "{model}");
        for (id, special) in specials {
            let words = format!("one {special}{special}two {special} three");
            assert!(tokenizer.encode(&words, false).expect("encodes").contains(&id), "{model}: {special}");
            let ids = tokenizer.encode(&tokenizer.shield(&words), false).expect("encodes");
            assert!(ids.iter().all(|id| !tokenizer.is_special(*id)), "{model}: {special}: {ids:?}");
            // Beside it the template's own is special still.
            let both = format!("{special}{}", tokenizer.shield(&words));
            let ids = tokenizer.encode(&both, false).expect("encodes");
            assert_eq!(ids.iter().filter(|other| **other == id).count(), 1, "{model}: {special}: {ids:?}");
        }
        assert!(matches!(tokenizer.shield("a < b | c [d]"), std::borrow::Cow::Borrowed(_)));
    }
}

#[test]
fn streams_are_the_decoded_text() {
    for model in MODELS {
        let text = text(model);
        for case in cases(model)["strings"].as_array().expect("strings") {
            let ids = ids(&case["ids"]);
            let pieces = stream(Detokenizer::new(&*text.tokenizer), &ids);
            assert_eq!(pieces.concat(), text.tokenizer.decode(&ids, true).expect("decodes"), "{model}");
            let held = pieces.iter().all(|piece| !piece.contains(char::REPLACEMENT_CHARACTER));
            assert!(held, "{model}: half a character in {pieces:?}");
        }
    }
}

#[test]
fn streams_of_any_ids_are_the_decoded_text() {
    let sentencepiece = Tokenizer::from_bytes(&sentencepiece()).expect("parses");
    let texts = MODELS.map(text);
    let tokenizers = texts.iter().map(|text| &*text.tokenizer).chain([&sentencepiece]);
    for (number, tokenizer) in (0..).zip(tokenizers) {
        let size = tokenizer.vocab_size() as u32;
        for round in 0..200 {
            let ids: Vec<u32> = (0..20).map(|i| philox([i, round, number, 0], [1, 2])[0] % size).collect();
            let whole = tokenizer.decode(&ids, true).expect("decodes");
            assert_eq!(stream(Detokenizer::new(tokenizer), &ids).concat(), whole, "{number}: {ids:?}");
        }
    }
}

/// A vocabulary whose tokens mean something to one decoder or another, with a decoder.
fn with_decoder(decoder: &Value) -> Tokenizer {
    let tokens = [
        "▁", "▁a", "a", "b", "ab▁", "▁▁", " ", " .", ".", "x ", " do not", " n't", "##b", "##▁.", "a</w>", "</w>",
        "<pad>", "|", "é", "Ã", "©", "Ġ", "Ġ.", "ðŁ", "ĺ", "Ģ", "<0xC3>", "<0xA9>", "<0x20>", "<0x2E>", "<0x", "<s>",
        "🙂 ",
    ];
    let vocab: Map<String, Value> = tokens.iter().enumerate().map(|(id, token)| ((*token).into(), id.into())).collect();
    let added = |id: usize, special: bool| {
        serde_json::json!({
            "id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": special,
        })
    };
    let json = serde_json::json!({
        "version": "1.0", "added_tokens": [added(tokens.len() - 2, true), added(tokens.len() - 1, false)],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": decoder,
        "model": { "type": "BPE", "vocab": vocab, "merges": [] },
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_or_else(|error| panic!("{decoder}: {error}"))
}

/// Every decoder of the `tokenizers` crate, some in more than one form.
fn decoders() -> Vec<Value> {
    let replace =
        |pattern: Value, content: &str| serde_json::json!({"type": "Replace", "pattern": pattern, "content": content});
    let strip =
        |start: usize, stop: usize| serde_json::json!({"type": "Strip", "content": " ", "start": start, "stop": stop});
    vec![
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
        serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true}),
        serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        serde_json::json!({"type": "BPEDecoder", "suffix": "</w>"}),
        serde_json::json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}),
        serde_json::json!({"type": "ByteFallback"}),
        serde_json::json!({"type": "Fuse"}),
        replace(serde_json::json!({"String": "▁"}), " "),
        replace(serde_json::json!({"String": " ."}), "."),
        replace(serde_json::json!({"String": "aab"}), "a"),
        replace(serde_json::json!({"Regex": " +$"}), "$"),
        strip(1, 0),
        strip(2, 2),
    ]
}

/// `Strip` panics within the `tokenizers` crate on tokens shorter than what it drops; thousands of backtraces take minutes.
fn decoded(tokenizer: &Tokenizer, ids: &[u32]) -> forge_runtime::Result<String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let text = tokenizer.decode(ids, true);
    std::panic::set_hook(hook);
    text
}

/// Each decoder, each pair and each triple of them in a Sequence, and none.
#[test]
fn streams_of_every_decoder_are_the_decoded_text() {
    let atoms = decoders();
    let sequence = |parts: &[&Value]| serde_json::json!({"type": "Sequence", "decoders": parts});
    let mut all = vec![Value::Null];
    for a in &atoms {
        all.extend([a.clone(), sequence(&[a])]);
        for b in &atoms {
            all.extend([sequence(&[a, b]), sequence(&[&sequence(&[a]), b])]);
            all.extend(atoms.iter().map(|c| sequence(&[a, b, c])));
        }
    }
    let (mut compared, mut refused) = (0, 0);
    for (number, decoder) in (0..).zip(&all) {
        let tokenizer = with_decoder(decoder);
        let size = tokenizer.vocab_size() as u32;
        for round in 0..10 {
            let ids: Vec<u32> = (0..16).map(|i| philox([i, round, number, 7], [3, 4])[0] % size).collect();
            let Ok(whole) = decoded(&tokenizer, &ids) else {
                refused += 1;
                continue;
            };
            let pieces = stream(Detokenizer::new(&tokenizer), &ids);
            assert_eq!(pieces.concat(), whole, "{decoder}: {ids:?}: {pieces:?}");
            let (prompt, answer) = ids.split_at(round as usize);
            let Ok(before) = decoded(&tokenizer, prompt) else { continue };
            let same =
                before.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum::<usize>();
            let continued = Detokenizer::after(&tokenizer, prompt).expect("decodes");
            assert_eq!(stream(continued, answer).concat(), whole[same..], "{decoder}: {prompt:?} then {answer:?}");
            compared += 1;
        }
    }
    assert!(compared > 20_000 && refused < compared / 4, "{compared} compared, {refused} refused");
}

/// Text is given out as soon as it is certain, not at the end.
#[test]
fn streams_hold_back_no_more_than_may_change() {
    let byte_level =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let nested = serde_json::json!({"type": "Sequence", "decoders": [byte_level]});
    let llama = serde_json::json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Replace", "pattern": {"String": " ."}, "content": "."},
    ]});
    for (decoder, tokens, expected) in [
        (&nested, ["a", "Ã", "©", "Ġ", "b"], ["a", "", "é", " ", "b", ""]),
        (&llama, ["▁a", "▁", ".", "<0xC3>", "<0xA9>"], ["a", "", ".", "", "", "é"]),
        (&llama, ["▁", "b", "▁", "a", "▁"], ["", "b", "", " a", "", " "]),
    ] {
        let tokenizer = with_decoder(decoder);
        let ids = tokens.map(|token| tokenizer.id(token).expect("a token"));
        assert_eq!(stream(Detokenizer::new(&tokenizer), &ids), expected, "{decoder}");
    }
}

/// A SentencePiece tokenizer as Llama 2 has it: byte fallback, and a decoder that strips the space before the first word.
fn sentencepiece() -> Vec<u8> {
    let mut vocab = Map::new();
    for token in ["<unk>", "<s>", "</s>"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    for byte in 0..=255 {
        vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
    }
    for token in ["▁", "a", "b", "▁a", "ab", "▁ab", "é", "▁▁"] {
        vocab.insert(token.into(), vocab.len().into());
    }
    serde_json::json!({
        "version": "1.0",
        "added_tokens": [
            { "id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true },
            { "id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true },
        ],
        "normalizer": { "type": "Sequence", "normalizers": [
            { "type": "Prepend", "prepend": "▁" },
            { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
        ] },
        "pre_tokenizer": null,
        "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": { "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab, "merges": ["▁ a", "a b", "▁ ab", "▁ ▁"] },
    })
    .to_string()
    .into_bytes()
}

#[test]
fn leading_spaces_of_sentencepiece() {
    let tokenizer = Tokenizer::from_bytes(&sentencepiece()).expect("parses");
    let ids = tokenizer.encode("ab a  b", false).expect("encodes");
    assert_eq!(stream(Detokenizer::new(&tokenizer), &ids).concat(), "ab a  b");
    let next = tokenizer.encode("ab", false).expect("encodes");
    let prompt = tokenizer.encode("a b", false).expect("encodes");
    let continued = Detokenizer::after(&tokenizer, &prompt).expect("decodes");
    assert_eq!(stream(continued, &next).concat(), " ab", "a continuation keeps the space of its first word");
    assert_eq!(stream(Detokenizer::new(&tokenizer), &next).concat(), "ab");
    let ids = tokenizer.encode("🙂b", false).expect("encodes");
    let pieces = stream(Detokenizer::new(&tokenizer), &ids);
    assert_eq!(pieces.concat(), "🙂b");
    assert_eq!(pieces.iter().filter(|piece| !piece.is_empty()).count(), 1, "bytes are held until their run is over");
}

#[test]
fn a_megabyte_of_anything_is_tokenized_in_time() {
    for model in MODELS {
        let text = text(model);
        for unit in ["a", " ", "\n", "é", "🙂", "1", "'", "a ", "\u{301}", "<"] {
            let long = unit.repeat(1_000_000 / unit.len());
            let start = Instant::now();
            let Ok(ids) = text.tokenizer.encode(&long, false) else {
                assert!(unit.trim().is_empty(), "{model}: {unit:?} is refused");
                continue;
            };
            let time = start.elapsed();
            assert!(time < Duration::from_secs(20), "{model}: {unit:?} took {time:?}");
            assert_eq!(text.tokenizer.decode(&ids, false).expect("decodes").len(), long.len(), "{model}: {unit:?}");
        }
    }
}

#[test]
fn texts_too_long_for_any_context_are_refused_unseen() {
    let text = text("llama");
    let start = Instant::now();
    let error = text.tokenizer.encode_within(&"x".repeat(50_000_000), false, 4096).expect_err("too long");
    assert!(error.to_string().contains("does not fit the context of 4096 tokens"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn broken_tokenizers_are_errors() {
    for broken in
        ["", "{}", "{\"version\":\"1.0\"}", "[1,2", "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[\"a b\"]}}"]
    {
        assert!(Tokenizer::from_bytes(broken.as_bytes()).is_err(), "{broken}");
    }
}

#[test]
fn a_long_run_splits_as_a_short_one() {
    for model in MODELS {
        let text = text(model);
        for (run, end) in [(" ", "a"), ("\n", "a"), (" ", "\n"), ("a", " b"), ("1", "a"), ("é", "!")] {
            let tail = |count: usize| {
                let ids = text.tokenizer.encode(&(run.repeat(count) + end), false).expect("encodes");
                ids[ids.len() - 2..].to_vec()
            };
            // A multiple of every power of two and three that a merge of runs may have.
            assert_eq!(tail(48), tail(48 * 4_000), "{model}: {run:?} then {end:?}");
        }
    }
}
