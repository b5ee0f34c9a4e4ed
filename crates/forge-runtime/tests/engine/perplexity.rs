//! Perplexity and KL divergence of a model that is a hash function, against sums over its logits made here.

use std::path::Path;

use crate::common;
use common::{HashModel, VOCAB, text};
use forge_runtime::perplexity::{Divergence, Perplexity, Reader, Windows, Writer};
use forge_runtime::{Error, LanguageModel, LogitRows};

const TEXT: &str = "Once upon a time there was a little fox, who had a lantern and a friend.";

fn windows(window: usize, most: usize) -> Result<Windows, Error> {
    Windows::new(&text("llama").tokenizer, TEXT, window, most)
}

#[test]
fn windows_cover_a_text_once() {
    let tokenizer = &text("llama").tokenizer;
    let first = tokenizer.encode("", true).expect("encodes");
    assert_eq!(first.len(), 1, "a token before each text");
    let all = tokenizer.encode(TEXT, false).expect("encodes");
    for window in [2, 5, 8, 200] {
        let cut = windows(window, usize::MAX).expect("a text");
        assert!(cut.ids.iter().all(|ids| ids[..1] == first[..] && (2..=window).contains(&ids.len())), "{cut:?}");
        let joined: Vec<u32> = cut.ids.iter().flat_map(|ids| ids[1..].to_vec()).collect();
        assert_eq!((joined, cut.given, cut.scored()), (all.clone(), 1, all.len()));
        for most in [1, 4, 5, 9] {
            let cut = windows(window, most).expect("a text");
            let joined: Vec<u32> = cut.ids.iter().flat_map(|ids| ids[1..].to_vec()).collect();
            assert_eq!((joined, cut.scored()), (all[..most].to_vec(), most), "window {window}");
        }
    }
    let short =
        |text: &str, window| Windows::new(tokenizer, text, window, usize::MAX).expect_err("too short").to_string();
    assert_eq!(short("", 8), "the text is too short: no token follows another");
    assert_eq!(short(TEXT, 1), "a window of 1 tokens has none to score after 1");
}

/// Log-probabilities as the definition has them, in f64.
fn expected(logits: &[f32]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|logit| f64::from(*logit).exp()).sum();
    logits.iter().map(|logit| f64::from(*logit) - sum.ln()).collect()
}

#[test]
fn every_token_is_scored_after_those_before_it() {
    let windows = windows(8, usize::MAX).expect("a text");
    let mut seen = Vec::new();
    let mut perplexity = Perplexity::default();
    let mut each = |token: u32, row: &[f32]| {
        perplexity.add(row[token as usize]);
        seen.push((token, row.to_vec()));
        Ok(())
    };
    windows.run(&mut HashModel::new(), &mut each).expect("runs");
    let mut sum = 0.0;
    let mut seen = seen.into_iter();
    for ids in &windows.ids {
        let mut logits = Vec::new();
        HashModel::new().prefill(0, 0, ids, LogitRows::All, &mut logits, &mut || true).expect("runs");
        for (token, row) in ids[1..].iter().zip(logits.chunks(VOCAB)) {
            let (scored, found) = seen.next().expect("a token");
            let row = expected(row);
            assert_eq!(scored, *token);
            assert!(row.iter().zip(found).all(|(a, b)| (a - f64::from(b)).abs() < 1e-5));
            sum -= row[*token as usize];
        }
    }
    assert!(seen.next().is_none());
    let value = (sum / windows.scored() as f64).exp();
    assert!((perplexity.value() / value - 1.0).abs() < 1e-5, "{} and {value}", perplexity.value());
    assert_eq!(perplexity.tokens(), windows.scored());
}

#[test]
fn divergences_are_those_of_the_definition() {
    let logs = |numbers: [f64; 4]| numbers.map(|number| number.ln() as f32);
    let source = [logs([0.5, 0.25, 0.25, 0.0]), logs([0.1, 0.2, 0.3, 0.4]), logs([0.25; 4])];
    let own = [logs([0.25, 0.25, 0.25, 0.25]), logs([0.4, 0.3, 0.2, 0.1]), logs([0.25; 4])];
    let mut divergence = Divergence::default();
    source.iter().zip(&own).for_each(|(source, own)| divergence.add(source, own));
    let first = 0.5 * 2.0_f64.ln();
    let second = 0.1 * 0.25_f64.ln() + 0.2 * (2.0_f64 / 3.0).ln() + 0.3 * 1.5_f64.ln() + 0.4 * 4.0_f64.ln();
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
    near(divergence.mean().0, (first + second) / 3.0);
    near(divergence.quantile(1.0), second.max(first));
    near(divergence.quantile(0.5), second.min(first));
    near(divergence.quantile(0.1), 0.0);
    near(divergence.same_top(), 2.0 / 3.0);
    let mean = (first + second) / 3.0;
    let variance = ((first - mean).powi(2) + (second - mean).powi(2) + mean.powi(2)) / 2.0;
    near(divergence.mean().1, (variance / 3.0).sqrt());
}

#[test]
fn what_is_saved_is_read_again_and_other_texts_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("source.safetensors");
    let cut = windows(8, 9).expect("a text");
    let mut rows: Vec<Vec<f32>> = Vec::new();
    let mut writer = Writer::create(&path, &cut, VOCAB).expect("creates");
    let mut each = |_: u32, row: &[f32]| {
        rows.push(row.to_vec());
        writer.add(row)
    };
    cut.run(&mut HashModel::new(), &mut each).expect("runs");
    writer.finish().expect("writes");
    let mut reader = Reader::open(&path, &cut, VOCAB).expect("the same text");
    for row in &rows {
        assert_eq!(reader.next_row().expect("a row"), row);
    }
    assert!(reader.next_row().is_err(), "nothing is left");
    let refused = |path: &Path, windows: &Windows, vocab_size| match Reader::open(path, windows, vocab_size) {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    };
    let other = "source.safetensors: it is of another text, window or tokenizer";
    assert!(refused(&path, &windows(8, 10).expect("a text"), VOCAB).ends_with(other));
    let mut swapped = cut.clone();
    swapped.ids[0].swap(1, 2);
    assert!(refused(&path, &swapped, VOCAB).ends_with(other));
    assert!(refused(&path, &cut, VOCAB + 1).ends_with("it is of another vocabulary"));
    let none = folder.path().join("none");
    std::fs::write(&none, vec![b'x'; 100]).expect("writes");
    assert!(refused(&none, &cut, VOCAB).ends_with("none: no log-probabilities of perplexity --save"));
}
