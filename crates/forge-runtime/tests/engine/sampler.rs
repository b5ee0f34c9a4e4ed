//! The sampler: its random numbers, its filters, its ties.

use forge_runtime::philox::{gumbel, philox};
use forge_runtime::sampler::{BANNED, Sampler, Sampling, greedy};

/// Known answers published with Random123.
#[test]
fn philox_known_answers() {
    assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = ([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(philox(pi.0, pi.1), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn gumbel_noise_has_its_mean() {
    let draws: Vec<f32> = (0..10_000).map(|token| gumbel(7, 0, token)).collect();
    assert!(draws.iter().all(|draw| draw.is_finite()));
    let mean = draws.iter().sum::<f32>() / draws.len() as f32;
    assert!((mean - 0.5772).abs() < 0.05, "{mean}");
    assert_ne!(gumbel(7, 1, 0), gumbel(8, 1, 0));
    assert_ne!(gumbel(7, 1, 0), gumbel(7, 1 + (1 << 32), 0), "the draw's upper half counts too");
}

fn counts(sampling: &Sampling, logits: &[f32], draws: usize) -> Vec<usize> {
    let mut sampler = Sampler::new(sampling);
    let mut counts = vec![0; logits.len()];
    for _ in 0..draws {
        let token = sampler.sample(&mut logits.to_vec()).expect("finite logits");
        counts[token as usize] += 1;
    }
    counts
}

fn at(temperature: f32) -> Sampling {
    Sampling { temperature, seed: 42, ..Sampling::default() }
}

#[test]
fn greedy_takes_the_lowest_of_equals() {
    assert_eq!(greedy(&[1.0, 3.0, 3.0, 2.0]), Some(1));
    assert_eq!(greedy(&[f32::NAN, f32::NEG_INFINITY, -5.0]), Some(2));
    assert_eq!(greedy(&[f32::NAN]), None);
    assert_eq!(greedy(&[]), None);
    assert_eq!(counts(&Sampling::default(), &[0.0, -0.0, 0.0], 3), [3, 0, 0]);
}

#[test]
fn draws_follow_the_probabilities() {
    let probabilities = [0.5f32, 0.3, 0.15, 0.05];
    let logits: Vec<f32> = probabilities.iter().map(|p| p.ln()).collect();
    let seen = counts(&at(1.0), &logits, 20_000);
    for (count, p) in seen.iter().zip(probabilities) {
        assert!((*count as f32 / 20_000.0 - p).abs() < 0.01, "{seen:?}");
    }
    // At temperature 1/2 the probabilities are squared.
    let squares: f32 = probabilities.iter().map(|p| p * p).sum();
    let seen = counts(&at(0.5), &logits, 20_000);
    for (count, p) in seen.iter().zip(probabilities) {
        assert!((*count as f32 / 20_000.0 - p * p / squares).abs() < 0.01, "{seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let logits: Vec<f32> = (0..1000u16).map(|i| f32::from(i % 37) * 0.1).collect();
    let tokens = |seed| {
        let mut sampler = Sampler::new(&Sampling { seed, ..at(1.0) });
        (0..50).map(|_| sampler.sample(&mut logits.clone())).collect::<Vec<_>>()
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
}

#[test]
fn filters_keep_what_they_say() {
    let logits: Vec<f32> = [0.4f32, 0.3, 0.2, 0.1].iter().map(|p| p.ln()).collect();
    let kept = |sampling: Sampling| counts(&sampling, &logits, 2000).iter().map(|count| *count > 0).collect::<Vec<_>>();
    assert_eq!(kept(at(1.0)), [true; 4]);
    assert_eq!(kept(Sampling { top_k: 2, ..at(1.0) }), [true, true, false, false]);
    assert_eq!(kept(Sampling { top_k: 9, ..at(1.0) }), [true; 4]);
    // The token that crosses the sum stays.
    assert_eq!(kept(Sampling { top_p: 0.6, ..at(1.0) }), [true, true, false, false]);
    assert_eq!(kept(Sampling { top_p: 0.001, ..at(1.0) }), [true, false, false, false]);
    assert_eq!(kept(Sampling { min_p: 0.6, ..at(1.0) }), [true, true, false, false]);
    assert_eq!(kept(Sampling { min_p: 1.0, ..at(1.0) }), [true, false, false, false]);
    // Of the two that top-k leaves the first has 4/7, short of 0.65; of all four, 0.65 would take two as well, but 0.55 takes one.
    assert_eq!(kept(Sampling { top_k: 2, top_p: 0.55, ..at(1.0) }), [true, false, false, false]);
    // The temperature comes first: at 1/2 the first alone has more than half.
    assert_eq!(kept(Sampling { top_p: 0.5, ..at(0.5) }), [true, false, false, false]);
    assert_eq!(kept(Sampling { top_p: 0.5, ..at(1.0) }), [true, true, false, false]);
}

#[test]
fn equals_of_the_last_token_kept_stay_too() {
    let kept = counts(&Sampling { top_k: 2, ..at(1.0) }, &[2.0, 1.0, 1.0, 1.0, 0.5], 2000);
    assert!(kept[..4].iter().all(|count| *count > 0) && kept[4] == 0, "{kept:?}");
}

#[test]
fn a_long_vocabulary_is_ranked_as_a_sorted_one() {
    let logits: Vec<f32> =
        (0..50_000u32).map(|i| philox([i, 0, 0, 0], [3, 3])[0] as f32 / u32::MAX as f32 * 4.0).collect();
    let mut ranking: Vec<u32> = (0..50_000).collect();
    ranking.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    let sampling = Sampling { top_k: 5000, ..at(1.0) };
    let seen = counts(&sampling, &logits, 500);
    let allowed = &ranking[..5000];
    assert!(seen.iter().zip(0u32..).all(|(count, id)| *count == 0 || allowed.contains(&id)));
    // Without filters, a draw walks the whole order at need.
    assert!(counts(&at(50.0), &logits, 200).iter().filter(|count| **count > 0).count() > 190);
}

#[test]
fn repeat_penalty_pushes_down_what_occurred() {
    let mut sampler = Sampler::new(&Sampling { repeat_penalty: 2.0, ..Sampling::default() });
    sampler.observe(0);
    sampler.observe(0);
    sampler.observe(2);
    let mut logits = [3.0, 1.6, -1.0];
    assert_eq!(sampler.sample(&mut logits), Some(1));
    assert_eq!(logits, [1.5, 1.6, -2.0]);
}

#[test]
fn frequency_and_presence_penalties_count_what_was_chosen() {
    let sampling = Sampling { presence_penalty: 0.5, frequency_penalty: 0.25, ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling);
    // A prompt's tokens do not count.
    sampler.observe(0);
    let mut after = |logits: [f32; 3]| {
        let mut logits = logits;
        (sampler.sample(&mut logits), logits)
    };
    assert_eq!(after([3.0, 2.5625, 1.0]), (Some(0), [3.0, 2.5625, 1.0]));
    assert_eq!(after([3.0, 2.5625, 1.0]), (Some(1), [2.25, 2.5625, 1.0]));
    assert_eq!(after([3.0, 2.5625, 1.0]), (Some(0), [2.25, 1.8125, 1.0]));
    assert_eq!(after([3.0, 2.5625, 1.0]), (Some(0), [2.0, 1.8125, 1.0]));
    assert_eq!(after([3.0, 2.5625, 1.0]), (Some(1), [1.75, 1.8125, 1.0]));
}

#[test]
fn biases_come_before_penalties() {
    let sampling = Sampling { repeat_penalty: 2.0, logit_bias: vec![(0, 1.0), (2, 100.0)], ..Sampling::default() };
    let mut sampler = Sampler::new(&sampling);
    sampler.observe(0);
    let mut logits = [3.0, 1.5, -200.0];
    assert_eq!(sampler.sample(&mut logits), Some(0));
    assert_eq!(logits, [2.0, 1.5, -100.0]);
    // Banned tokens are drawn at no temperature.
    let bans: Vec<(u32, f32)> = (0..7).map(|id| (id, BANNED)).collect();
    let banned = Sampling { logit_bias: bans, repeat_penalty: 100.0, ..at(100.0) };
    assert_eq!(counts(&banned, &[9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, -9.0], 200)[7], 200);
}

#[test]
fn choices_are_among_what_is_allowed() {
    let logits = [3.0, 2.0, 1.0, 2.5];
    for (allowed, expected) in [([0b1111], Some(0)), ([0b0110], Some(1)), ([0b1100], Some(3)), ([0], None)] {
        assert_eq!(Sampler::new(&Sampling::default()).sample_among(&mut logits.clone(), Some(&allowed)), expected);
        let drawn = Sampler::new(&at(1e-3)).sample_among(&mut logits.clone(), Some(&allowed));
        assert_eq!(drawn, expected);
    }
    // What there are no bits of is not allowed.
    assert_eq!(Sampler::new(&Sampling::default()).sample_among(&mut logits.clone(), Some(&[])), None);
}

#[test]
fn senseless_parameters_are_refused() {
    assert!(at(1.0).check().is_ok());
    for bad in [
        at(-1.0),
        at(f32::NAN),
        at(100.5),
        at(f32::INFINITY),
        Sampling { top_p: 0.0, ..at(1.0) },
        Sampling { top_p: -0.1, ..at(1.0) },
        Sampling { top_p: 1.5, ..at(1.0) },
        Sampling { top_p: f32::NAN, ..at(1.0) },
        Sampling { min_p: -0.1, ..at(1.0) },
        Sampling { min_p: 1.1, ..at(1.0) },
        Sampling { repeat_penalty: 0.0, ..at(1.0) },
        Sampling { repeat_penalty: 1e-30, ..at(1.0) },
        Sampling { repeat_penalty: 101.0, ..at(1.0) },
        Sampling { presence_penalty: 2.1, ..at(1.0) },
        Sampling { presence_penalty: f32::NAN, ..at(1.0) },
        Sampling { frequency_penalty: -2.1, ..at(1.0) },
        Sampling { logit_bias: vec![(0, 1.0), (1, 101.0)], ..at(1.0) },
        Sampling { logit_bias: vec![(0, f32::NEG_INFINITY)], ..at(1.0) },
        Sampling { logit_bias: vec![(0, f32::NAN)], ..at(1.0) },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
