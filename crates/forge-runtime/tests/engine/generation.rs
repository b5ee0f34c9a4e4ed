//! The token loop: limits, stop strings, cancellation, reuse of the sequence before.

use std::sync::atomic::Ordering;

use crate::common;
use common::{HashModel, text};
use forge_runtime::Error;
use forge_runtime::generation::{Engine, Finish, Listener, Request, StopMatcher, Summary};
use forge_runtime::sampler::Sampling;

/// Keeps the pieces; says stop after some of them.
#[derive(Default)]
struct Pieces {
    pieces: Vec<String>,
    polls: usize,
    stop_at_piece: Option<usize>,
    stop_at_poll: Option<usize>,
}

impl Listener for Pieces {
    fn text(&mut self, text: &str) -> bool {
        assert!(!text.is_empty());
        self.pieces.push(text.to_owned());
        self.stop_at_piece != Some(self.pieces.len())
    }

    fn keep_going(&mut self) -> bool {
        self.polls += 1;
        self.stop_at_poll.is_none_or(|poll| self.polls < poll)
    }
}

fn request(prompt: &[u32]) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens: Some(20),
        sampling: Sampling::default(),
        stop: Vec::new(),
        continues_prompt: false,
        ..Request::default()
    }
}

fn run(script: &str, change: impl FnOnce(&mut Request)) -> (String, Summary) {
    let text = text("demo");
    let mut script = text.tokenizer.encode(script, false).expect("encodes");
    script.push(2047);
    let mut request = request(&[2043, 1, 2]);
    change(&mut request);
    let mut pieces = Pieces::default();
    let mut engine = Engine::new(HashModel::scripted(&script), text);
    let summary = engine.generate(&request, &mut pieces).expect("generates");
    (pieces.pieces.concat(), summary)
}

#[test]
fn runs_to_an_end_token() {
    let (text, summary) = run("Once upon a time", |_| {});
    assert_eq!(text, "Once upon a time");
    assert_eq!((summary.finish, summary.prompt_tokens), (Finish::Stop, 3));
    let (text, summary) = run("🙂é Größe 東京", |request| request.max_tokens = Some(100));
    assert_eq!((text.as_str(), summary.finish), ("🙂é Größe 東京", Finish::Stop));
}

#[test]
fn runs_to_its_limit() {
    let (_, summary) = run("Once upon a time there was a fox", |request| request.max_tokens = Some(3));
    assert_eq!((summary.finish, summary.completion_tokens), (Finish::Length, 3));
    let (text, summary) = run("Once", |request| request.max_tokens = Some(0));
    assert_eq!((text.as_str(), summary.finish, summary.completion_tokens), ("", Finish::Length, 0));
    // Cut off inside a character: what there is of it shows as U+FFFD, once.
    let (text, _) = run("a🙂", |request| request.max_tokens = Some(2));
    assert_eq!(text, "a\u{FFFD}");
}

#[test]
fn runs_to_the_end_of_the_context() {
    let text = text("demo");
    let mut engine = Engine::new(HashModel { context: 10, ..HashModel::scripted(&[70; 99]) }, text);
    let unlimited = Request { max_tokens: None, ..request(&[1, 2, 3]) };
    let summary = engine.generate(&unlimited, &mut Pieces::default()).expect("generates");
    // Seven more are fed, and the last one fed gives an eighth.
    assert_eq!((summary.finish, summary.completion_tokens), (Finish::Length, 8));
}

#[test]
fn stop_strings_never_show() {
    let (text, summary) = run("one two three four", |request| request.stop = vec![" three".into(), "zzz".into()]);
    assert_eq!((text.as_str(), summary.finish), ("one two", Finish::Stop));
    let (text, summary) = run("one two", |request| request.stop = vec!["twofold".into()]);
    assert_eq!((text.as_str(), summary.finish), ("one two", Finish::Stop), "what was held back comes in the end");
    let (text, _) = run("one two", |request| request.stop = vec!["one".into()]);
    assert_eq!(text, "");
    let (text, _) = run("a🙂b", |request| request.stop = vec!["🙂".into()]);
    assert_eq!(text, "a");
}

#[test]
fn stop_matcher_holds_back_no_more_than_it_must() {
    let mut matcher = StopMatcher::new(vec!["abc".into(), "bd".into(), String::new()]);
    assert_eq!(matcher.push("xa"), ("x".into(), false));
    assert_eq!(matcher.push("b"), (String::new(), false));
    assert_eq!(matcher.push("b"), ("ab".into(), false));
    assert_eq!(matcher.push("é"), ("bé".into(), false));
    assert_eq!(matcher.push("aab"), ("a".into(), false));
    assert_eq!(matcher.push("dc"), ("a".into(), true));
}

/// Every way to cut a text into pieces gives the same result.
#[test]
fn stop_matcher_does_not_depend_on_the_pieces() {
    let text = "aabaabaaab-ababc";
    for cuts in 0..1u32 << (text.len() - 1) {
        if cuts % 37 != 0 {
            continue;
        }
        let mut matcher = StopMatcher::new(vec!["aaab".into(), "abc".into()]);
        let mut out = String::new();
        let mut piece = String::new();
        for (i, c) in text.chars().enumerate() {
            piece.push(c);
            if cuts >> i & 1 == 1 || i + 1 == text.len() {
                let (certain, stopped) = matcher.push(&std::mem::take(&mut piece));
                out += &certain;
                if stopped {
                    break;
                }
            }
        }
        assert_eq!(out, "aabaab");
    }
}

#[test]
fn listeners_can_stop_it() {
    let text = text("demo");
    let prompt: Vec<u32> = (0..40).collect();
    let model = HashModel::scripted(&text.tokenizer.encode("one two three four", false).expect("encodes"));
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text);
    let mut listener = Pieces { stop_at_piece: Some(2), ..Pieces::default() };
    let summary = engine.generate(&request(&prompt), &mut listener).expect("generates");
    assert_eq!((summary.finish, listener.pieces.len()), (Finish::Cancelled, 2));
    // In the middle of the prompt: five tiles, stopped before the third.
    let tiles = counters.tiles.load(Ordering::SeqCst);
    let mut listener = Pieces { stop_at_poll: Some(3), ..Pieces::default() };
    let other: Vec<u32> = (1..41).collect();
    let summary = engine.generate(&request(&other), &mut listener).expect("generates");
    assert_eq!((summary.finish, summary.completion_tokens), (Finish::Cancelled, 0));
    assert_eq!(counters.tiles.load(Ordering::SeqCst) - tiles, 2);
    // And the engine is good for the next request.
    let summary = engine.generate(&request(&prompt), &mut Pieces::default()).expect("generates");
    assert_ne!(summary.finish, Finish::Cancelled);
}

#[test]
fn the_next_turn_goes_on_where_the_last_one_ended() {
    let text = text("demo");
    let model = HashModel::new();
    let counters = model.counters.clone();
    let mut engine = Engine::new(model, text.clone());
    let first = Request { max_tokens: Some(5), ..request(&[9, 8, 7]) };
    let mut listener = Pieces::default();
    engine.generate(&first, &mut listener).expect("generates");
    let mut fresh = Engine::new(HashModel::new(), text);
    let mut tokens = vec![9, 8, 7];
    for _ in 0..4 {
        // What the first turn decoded, found one token at a time.
        let mut logits = Vec::new();
        let mut model = HashModel::new();
        forge_runtime::LanguageModel::prefill(
            &mut model,
            0,
            0,
            &tokens,
            forge_runtime::LogitRows::Last,
            &mut logits,
            &mut || true,
        )
        .expect("prefills");
        tokens.push(forge_runtime::sampler::greedy(&logits).expect("finite"));
    }
    tokens.extend([5, 6]);
    counters.prefilled_tokens.store(0, Ordering::SeqCst);
    let (mut continued, mut restarted) = (Pieces::default(), Pieces::default());
    let summary = engine.generate(&request(&tokens), &mut continued).expect("generates");
    // The prompt's last token is decoded.
    assert_eq!((summary.reused_tokens, counters.prefilled_tokens.load(Ordering::SeqCst)), (7, 1));
    fresh.generate(&request(&tokens), &mut restarted).expect("generates");
    assert_eq!(continued.pieces, restarted.pieces);
}

#[test]
fn a_recurrent_state_is_gone_on_with_from_its_end_alone() {
    for (rewind, cut_back) in [(Some(0), 0), (None, 2)] {
        let mut engine = Engine::new(HashModel::with_slots(1, rewind), text("demo"));
        let mut reused = |prompt: &[u32]| {
            let request = Request { max_tokens: Some(0), ..request(prompt) };
            engine.generate(&request, &mut Pieces::default()).expect("runs").reused_tokens
        };
        // A prompt's last token is not run here.
        assert_eq!(reused(&[1, 2, 3, 4]), 0);
        assert_eq!(reused(&[1, 2, 3, 9, 9]), 3);
        assert_eq!(reused(&[1, 2, 7, 7]), cut_back);
    }
}

#[test]
fn bad_prompts_are_refused() {
    let mut engine = Engine::new(HashModel { context: 8, ..HashModel::new() }, text("demo"));
    let mut run = |prompt: &[u32]| engine.generate(&request(prompt), &mut Pieces::default());
    assert!(matches!(run(&[]), Err(Error::EmptyPrompt)));
    assert!(matches!(run(&[1; 8]), Err(Error::PromptTooLong { tokens: 8, context: 8 })));
    assert!(matches!(run(&[1, 2048]), Err(Error::TokenOutOfRange { id: 2048, vocab_size: 2048 })));
    assert!(run(&[1; 7]).is_ok());
}
