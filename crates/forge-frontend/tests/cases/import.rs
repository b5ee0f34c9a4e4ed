//! Checkpoints whose tokenizers say something in a place of their own, from the import to ids and text.

use std::fs;
use std::path::{Path, PathBuf};

use forge_frontend::Assets;
use forge_frontend::checkpoint::GgufFile;
use forge_runtime::assets::Text;
use forge_runtime::chat_templates::Ending;
use forge_runtime::tokenizer::Detokenizer;
use serde_json::{Map, Value, json};

fn fixture(case: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(case).join(file)
}

fn read(case: &str, file: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(case, file)).expect("a fixture")).expect("JSON")
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// What a generated program has of the assets.
fn text(assets: Assets) -> Text {
    let generation = serde_json::to_string(&assets.generation).expect("JSON");
    let embedded = forge_runtime::Assets {
        tokenizer: assets.tokenizer_json.leak(),
        chat_template: assets.chat_template.map(|template| &*template.leak()),
        generation: generation.leak(),
        project: "",
        weights: None,
    };
    Text::load(&embedded).expect("a tokenizer")
}

/// The ids of a case's `chat.json`.
fn chat(case: &str, text: &Text) -> Vec<u32> {
    let messages = &read(case, "chat.json")["messages"];
    let rendered = text.render_chat(messages, Ending::Opened, &Map::new()).expect("renders");
    text.tokenizer.encode(&rendered, false).expect("encodes")
}

/// A copy of a case with other keys in its tokenizer_config.json; null takes one out.
fn with_keys(case: &str, keys: Value) -> Text {
    let folder = tempfile::tempdir().expect("a folder");
    for file in fs::read_dir(fixture(case, "")).expect("a folder").flatten() {
        fs::copy(file.path(), folder.path().join(file.file_name())).expect("copied");
    }
    let mut config = read(case, "tokenizer_config.json");
    let config_keys = config.as_object_mut().expect("an object");
    for (key, value) in keys.as_object().expect("an object") {
        match value {
            Value::Null => config_keys.remove(key),
            value => config_keys.insert(key.clone(), value.clone()),
        };
    }
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).expect("written");
    text(Assets::from_folder(folder.path()).expect("assets"))
}

#[test]
fn role_tokens_of_phi3_drop_the_white_space_after_them() {
    let gguf = GgufFile::open(&fixture("phi3", "vocabulary.gguf")).expect("a GGUF");
    let text = text(Assets::from_gguf(&gguf).expect("assets"));
    let expected = read("phi3", "expected.json");
    assert_eq!(chat("phi3", &text), ids(&expected["ids"]));
    let flagged = text.tokenizer.encode("<|user|> \n the<|endoftext|> the<s> the", false).expect("encodes");
    let [user, the, end, bos] =
        ["<|user|>", "\u{2581}the", "<|endoftext|>", "<s>"].map(|token| text.tokenizer.id(token).expect("a token"));
    let space = text.tokenizer.id("\u{2581}").expect("a token");
    assert_eq!(flagged, [user, the, end, space, the, bos, space, the], "three tokens keep what follows");
}

/// The GGUF of a folder whose tokenizer_config.json names none of its markers: gguf-py types them as normal text.
#[test]
fn markers_that_a_gguf_types_as_text_are_found_whole() {
    let gguf = GgufFile::open(&fixture("normal-markers", "vocabulary.gguf")).expect("a GGUF");
    let text = text(Assets::from_gguf(&gguf).expect("assets"));
    let expected = read("normal-markers", "expected.json");
    assert_eq!(chat("normal-markers", &text), ids(&expected["ids"]));
    let [begin, end] = ["<start_of_turn>", "<end_of_turn>"].map(|token| text.tokenizer.id(token).expect("a token"));
    assert!(text.defaults.end_token_ids.contains(&end), "{:?}", text.defaults.end_token_ids);
    // What llama.cpp does not know by name is written out, as it writes it.
    assert_eq!(text.tokenizer.decode(&[begin, end], true).expect("decodes"), "<start_of_turn>");
    let typed = text.tokenizer.encode(&text.tokenizer.shield("<start_of_turn>"), false).expect("encodes");
    assert!(typed.len() > 1 && !typed.contains(&begin), "what a user writes stays text: {typed:?}");
}

#[test]
fn tokens_of_added_tokens_json_are_tokens() {
    let text = text(Assets::from_folder(&fixture("added-tokens", "")).expect("assets"));
    let expected = read("added-tokens", "expected.json");
    assert_eq!(chat("added-tokens", &text), ids(&expected["ids"]));
    let end = expected["end_token_ids_contain"].as_u64().expect("an id") as u32;
    assert!(text.defaults.end_token_ids.contains(&end), "{:?}", text.defaults.end_token_ids);
    assert!(text.tokenizer.is_special(end) && !text.tokenizer.is_special(end + 1));
    assert_eq!(text.tokenizer.decode(&[end + 1], true).expect("decodes"), "<|im_start|>");
}

/// A tokenizer.json with holes between the ids of its added tokens: each has the id that its file says.
#[test]
fn added_tokens_keep_their_ids() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("add-eos-token", file), folder.path().join(file)).expect("copied");
    }
    fs::write(folder.path().join("added_tokens.json"), json!({"<b>": 530, "<a>": 521}).to_string()).expect("written");
    let text = text(Assets::from_folder(folder.path()).expect("assets"));
    assert_eq!(text.tokenizer.encode("<a>x<b>", false).expect("encodes"), [521, 87, 530]);
    assert_eq!(text.tokenizer.decode(&[530, 521], true).expect("decodes"), "<b><a>");
    assert_eq!(
        text.tokenizer.encode("hello", true).expect("encodes"),
        ids(&read("add-eos-token", "expected.json")["ids"])
    );
}

#[test]
fn keys_without_effect_in_transformers_have_none() {
    let expected = read("add-eos-token", "expected.json");
    let sentence = expected["text"].as_str().expect("a text");
    for keys in
        [json!({}), json!({"add_bos_token": false}), json!({"add_eos_token": false}), json!({"add_eos_token": null})]
    {
        let text = with_keys("add-eos-token", keys.clone());
        assert_eq!(text.tokenizer.encode(sentence, true).expect("encodes"), ids(&expected["ids"]), "{keys}");
        assert!(text.defaults.add_bos, "{keys}");
    }
}

/// Beside a tokenizer.model the keys decide; a class that adds BOS does so unless its own key says no.
#[test]
fn keys_beside_a_sentencepiece_model() {
    let (bos, eos) = (1, 400);
    for (class, add_bos, add_eos, begins, ends) in [
        ("LlamaTokenizer", json!(null), json!(null), true, false),
        ("LlamaTokenizer", json!(null), json!(true), true, true),
        ("LlamaTokenizerFast", json!(null), json!(false), true, false),
        ("LlamaTokenizer", json!(false), json!(null), false, false),
        ("LlamaTokenizer", json!(false), json!(true), false, true),
        ("PreTrainedTokenizerFast", json!(null), json!(null), false, false),
        ("PreTrainedTokenizerFast", json!(true), json!(true), true, true),
    ] {
        let keys = json!({"tokenizer_class": class, "add_bos_token": add_bos, "add_eos_token": add_eos});
        let ids = with_keys("added-tokens", keys.clone()).tokenizer.encode("the fox", true).expect("encodes");
        assert_eq!((ids.first() == Some(&bos), ids.last() == Some(&eos)), (begins, ends), "{keys}: {ids:?}");
    }
}

#[test]
fn a_decoder_in_a_sequence_streams_whole_characters() {
    let text = text(Assets::from_folder(&fixture("sequence-decoder", "")).expect("assets"));
    let expected = read("sequence-decoder", "expected.json");
    let prompt = text.tokenizer.encode(expected["prompt"].as_str().expect("a prompt"), true).expect("encodes");
    let mut stream = Detokenizer::after(&*text.tokenizer, &prompt).expect("decodes");
    let mut pieces: Vec<String> = ids(&expected["ids"]).iter().map(|id| stream.push(*id).expect("decodes")).collect();
    pieces.push(stream.finish().expect("decodes"));
    assert_eq!(pieces.concat(), expected["text"].as_str().expect("a text"));
    assert_eq!(pieces, ["", "é", "h", "i", "", ""]);
}
