//! A model behind a service: texts with callbacks and iterators, from several threads, ended early, and the errors.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::common;
use common::{HashModel, INFO, assets};
use forge_runtime::generation::{Finish, Request};
use forge_runtime::serde_json::json;
use forge_runtime::service::{Options, Service};
use forge_runtime::{Error, ModelInfo};

fn load(make: impl FnOnce() -> HashModel + Send + 'static) -> Service {
    let options = Options { weights: Some("unused".into()), ..Options::default() };
    Service::load(&assets("demo"), &options, move |_| Ok(make())).expect("loads")
}

fn two_slots(pace: Duration) -> Service {
    load(move || HashModel { pace, ..HashModel::with_info(ModelInfo { slots: 2, few_rows: 8, ..INFO }) })
}

fn request(max_tokens: usize) -> Request {
    Request { prompt: vec![1, 2, 3], max_tokens: Some(max_tokens), ..Request::default() }
}

#[test]
fn a_callback_and_an_iterator_hear_the_same() {
    let service = two_slots(Duration::ZERO);
    let mut heard = String::new();
    let summary = service.generate(&request(20), |text| {
        heard += text;
        true
    });
    assert_eq!(summary.expect("a text").completion_tokens, 20);
    let mut stream = service.stream(&request(20)).expect("starts");
    assert!(stream.summary().is_none());
    let pieces: Vec<String> = (&mut stream).map(|piece| piece.expect("no error")).collect();
    assert_eq!(pieces.concat(), heard);
    assert_eq!(stream.summary().map(|summary| summary.finish), Some(Finish::Length));
    assert_eq!(stream.finish().expect("a text").completion_tokens, 20);
}

#[test]
fn a_callback_ends_its_text() {
    let service = two_slots(Duration::ZERO);
    let mut pieces = 0;
    let summary = service.generate(&request(200), |_| {
        pieces += 1;
        pieces < 3
    });
    // Also where the model is at its end before it hears of it.
    assert_eq!((summary.expect("a text").finish, pieces), (Finish::Cancelled, 3));
}

#[test]
fn what_nobody_reads_is_ended() {
    let model = HashModel { pace: Duration::from_millis(2), ..HashModel::new() };
    let counters = model.counters.clone();
    let service = load(|| model);
    drop(service.stream(&request(200)).expect("starts"));
    // The slot is free at once, and not after 200 tokens.
    assert_eq!(service.generate(&request(5), |_| true).expect("a text").completion_tokens, 5);
    assert!(counters.decoded.load(Ordering::SeqCst) < 100);
}

#[test]
fn dropping_the_service_ends_its_texts() {
    let service = two_slots(Duration::from_millis(2));
    let streams = [(); 3].map(|()| service.stream(&request(200)).expect("starts"));
    service.close();
    assert!(matches!(service.generate(&request(5), |_| true), Err(Error::Cancelled)));
    drop(service);
    for stream in streams {
        match stream.finish() {
            Ok(summary) => assert_eq!(summary.finish, Finish::Cancelled),
            // It had not begun.
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
        }
    }
}

#[test]
fn requests_are_made_of_texts_and_chats() {
    let service = two_slots(Duration::ZERO);
    let text = service.continuation("Once upon a time").expect("a request");
    assert!(text.continues_prompt && text.max_tokens.is_none());
    assert_eq!(text.prompt, service.text().tokenizer.encode("Once upon a time", true).expect("tokens"));
    let chat = json!([{ "role": "user", "content": "Hi" }]);
    let answer = service.answer(&chat).expect("a request");
    assert!(!answer.continues_prompt);
    let prompt =
        service.text().prompt_of(&json!({ "messages": chat, "add_generation_prompt": true })).expect("a prompt");
    assert_eq!(answer.prompt, service.text().tokenizer.encode(&prompt, false).expect("tokens"));
    assert!(matches!(service.continuation(&"word ".repeat(100_000)), Err(Error::PromptTooLong { .. })));
    assert!(matches!(service.answer(&json!([{ "content": "Hi" }])), Err(Error::Messages { .. })));
}

#[test]
fn errors_end_a_stream() {
    let service = load(|| HashModel { panic_on: Some(7), ..HashModel::new() });
    for (prompt, words) in [(vec![], "empty"), (vec![5000], "vocabulary"), (vec![1, 7], "failed on this request")] {
        let mut stream = service.stream(&Request { prompt, ..request(5) }).expect("starts");
        let error = stream.find_map(Result::err).expect("an error");
        assert!(error.to_string().contains(words), "{error}");
        assert!(stream.next().is_none() && stream.summary().is_none());
        assert!(matches!(stream.finish(), Err(Error::Stopped)));
    }
    assert_eq!(service.generate(&request(5), |_| true).expect("a text").completion_tokens, 5);
}

#[test]
fn a_model_that_panics_while_it_is_loaded_is_an_error() {
    let options = Options { weights: Some("unused".into()), ..Options::default() };
    let service = Service::load(&assets("demo"), &options, |_| -> forge_runtime::Result<HashModel> { panic!("no") });
    assert!(matches!(service.err(), Some(Error::Stopped)));
}
