//! The sampling kernels against the host's sampler: the same token for the same logits, also where parameters are extreme.

use std::collections::BTreeSet;

use crate::common;
use forge_runtime::gpu::{Buffer, Gpu, KernelSpec, Source, pool};
use forge_runtime::philox::philox;
use forge_runtime::sampler::{BANNED, LEAST_TOP_P, Sampler, Sampling, StepSampling};
use forge_runtime::spec::StepParams;

const FAMILY: &str = include_str!("../../../../templates/msl/sample.metal");

/// What a project's `kernels.metal` has around the family.
const HEAD: &str = r"
#include <metal_stdlib>
using namespace metal;
";

const KERNELS: &str = r"
kernel void best(device const float* logits [[buffer(0)]], device const uint* seen [[buffer(1)]],
                 device const float* bias [[buffer(2)]], device const uint* times [[buffer(3)]],
                 device const uint* allowed [[buffer(4)]], device uint* best [[buffer(5)]],
                 device atomic_uint* count [[buffer(6)]], constant StepParams& step [[buffer(7)]], uint2 group [[threadgroup_position_in_grid]],
                 uint thread_index [[thread_index_in_threadgroup]], uint simdgroup [[simdgroup_index_in_threadgroup]],
                 uint lane [[thread_index_in_simdgroup]]) {
    threadgroup uint shared[16];
    best_logit<600, 2, 1>(logits, seen, bias, times, allowed, best, count, shared, step, group, thread_index, simdgroup,
                          lane);
}

kernel void collect(device const float* logits [[buffer(0)]], device const uint* seen [[buffer(1)]],
                    device const float* bias [[buffer(2)]], device const uint* times [[buffer(3)]],
                    device const uint* allowed [[buffer(4)]], device const uint* best [[buffer(5)]],
                    device atomic_uint* count [[buffer(6)]], device Candidate* candidates [[buffer(7)]],
                    constant StepParams& step [[buffer(8)]],
                    uint2 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]]) {
    collect_candidates<600, 2, 1>(logits, seen, bias, times, allowed, best, count, candidates, step, group, thread_index);
}

kernel void draw(device const uint* best [[buffer(0)]], device const atomic_uint* count [[buffer(1)]],
                 device const Candidate* candidates [[buffer(2)]], device uint* seen [[buffer(3)]],
                 device uint* times [[buffer(4)]], device uint* next_token [[buffer(5)]],
                 device uint* chosen [[buffer(6)]], constant StepParams& step [[buffer(7)]], uint2 group [[threadgroup_position_in_grid]],
                 uint thread_index [[thread_index_in_threadgroup]],
                 uint simdgroup [[simdgroup_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]]) {
    threadgroup uint shared[16];
    draw_token<600, 2, 1>(best, count, candidates, seen, times, next_token, chosen, shared, step, group, thread_index,
                          simdgroup, lane);
}
";

const VOCAB: usize = 600;

static SPECS: [KernelSpec; 3] = [
    KernelSpec { name: "best", threads: 256, threadgroup_bytes: 64 },
    KernelSpec { name: "collect", threads: 256, threadgroup_bytes: 64 },
    KernelSpec { name: "draw", threads: 256, threadgroup_bytes: 64 },
];

struct Device {
    gpu: Gpu,
    /// Logits, seen, best, count, candidates, next token, chosen, step, bias, times, allowed.
    buffers: [Buffer; 11],
}

impl Device {
    fn open() -> Self {
        let text: &'static str = format!("{HEAD}{}{FAMILY}{KERNELS}", common::step_params()).leak();
        let gpu = Gpu::open(&Source::new(text, &[]), &SPECS).unwrap_or_else(|error| panic!("{error}"));
        let sizes = [VOCAB * 4, 256, 256, 256, VOCAB * 12, 256, 256, 256, VOCAB * 4, VOCAB * 4, 256];
        let buffers = sizes.map(|bytes| gpu.alloc("sampling", bytes as u64).expect("memory"));
        Self { gpu, buffers }
    }

    /// The sequence begins: these biases, and no token chosen yet.
    fn begin(&self, bias: &[(u32, f32)], allowed: Option<&[u32]>) {
        let [.., biases, times, mask] = &self.buffers;
        let mut dense = [f32::NAN; VOCAB];
        if !bias.is_empty() {
            dense.fill(0.0);
        }
        bias.iter().for_each(|&(id, bias)| dense[id as usize] = bias);
        biases.write(0, &dense);
        times.write(0, &[0u32; VOCAB]);
        mask.write(0, allowed.unwrap_or(&[0; VOCAB.div_ceil(32)]));
    }

    /// How often each token was chosen since then, as far as it was counted.
    fn times(&self) -> [u32; VOCAB] {
        let mut times = [0u32; VOCAB];
        self.buffers[9].read(0, &mut times);
        times
    }

    /// The token that the kernels choose.
    fn choose(&self, logits: &[f32], seen: &BTreeSet<u32>, step: &StepSampling) -> u32 {
        let [logit, bits, best, count, candidates, next, chosen, params, bias, times, allowed] = &self.buffers;
        logit.write(0, logits);
        let mut words = [0u32; VOCAB.div_ceil(32)];
        seen.iter().for_each(|id| words[*id as usize / 32] |= 1 << (id % 32));
        bits.write(0, &words);
        params.write(0, &StepParams { rows: 1, chooses: 1, ..step.params() }.words());
        let pending = pool(|| {
            let mut commands = self.gpu.commands("sampling");
            let shared = [logit, bits, best, count].map(Buffer::whole);
            let [logit, bits, best, count] = &shared;
            let (candidates, step) = (candidates.whole(), params.whole());
            let wishes = [bias, times, allowed].map(Buffer::whole);
            let [bias, times, allowed] = &wishes;
            let logits = [logit, bits, bias, times, allowed, best, count];
            commands.dispatch(self.gpu.kernel(0), &[&logits[..], &[&step]].concat(), [2, 1, 1]);
            commands.barrier();
            commands.dispatch(self.gpu.kernel(1), &[&logits[..], &[&candidates, &step]].concat(), [2, 1, 1]);
            commands.barrier();
            let chosen = chosen.whole();
            commands.dispatch(
                self.gpu.kernel(2),
                &[best, count, &candidates, bits, times, &next.whole(), &chosen, &step],
                [1, 1, 1],
            );
            commands.commit()
        });
        pending.wait().expect("runs");
        let mut token = [0u32];
        chosen.read(0, &mut token);
        token[0]
    }
}

/// Logits with ties, with values that are not finite, with one far above the others, and near nothing.
fn rows() -> Vec<Vec<f32>> {
    let noise = |row: u32, scale: f32| -> Vec<f32> {
        (0..VOCAB as u32)
            .map(|id| (philox([id, row, 0, 0], [7, 7])[0] as f32 / u32::MAX as f32 - 0.5) * scale)
            .collect()
    };
    let mut odd = noise(1, 12.0);
    odd[3] = f32::NAN;
    odd[4] = f32::INFINITY;
    odd[5] = f32::NEG_INFINITY;
    let mut peak = noise(2, 1.0);
    peak[599] = 60.0;
    let ties = noise(3, 8.0).iter().map(|logit| logit.round()).collect();
    vec![noise(0, 20.0), odd, peak, ties, vec![0.0; VOCAB], noise(4, 1e-3), noise(5, 1e30)]
}

fn settings() -> Vec<Sampling> {
    let base = Sampling { temperature: 1.0, seed: 0x0123_4567_89AB_CDEF, ..Sampling::default() };
    let temperatures = [0.0, f32::from_bits(1), f32::MIN_POSITIVE, 1e-30, 1e-3, 1.0, 2.0, 100.0];
    let top_ps = [f32::from_bits(1), f32::MIN_POSITIVE, 1e-30, 5e-8, 5.9604645e-8, 1e-3, 0.999_999_94, 1.0];
    let min_ps = [0.0, 1e-30, 5.9604645e-8, 0.5, 0.999_999_94, 1.0];
    let penalties = [0.01, 0.5, 1.0, 1.3, 100.0];
    let mut settings = Vec::new();
    settings.extend(temperatures.map(|temperature| Sampling { temperature, ..base.clone() }));
    settings.extend(temperatures.map(|temperature| Sampling { temperature, top_p: LEAST_TOP_P, ..base.clone() }));
    settings.extend(top_ps.map(|top_p| Sampling { top_p, ..base.clone() }));
    settings.extend(top_ps.map(|top_p| Sampling { top_p, top_k: 3, min_p: 0.01, ..base.clone() }));
    settings.extend([0, 1, 2, VOCAB - 1, VOCAB, usize::MAX].map(|top_k| Sampling { top_k, ..base.clone() }));
    settings.extend(min_ps.map(|min_p| Sampling { min_p, temperature: 1.5, ..base.clone() }));
    settings.extend(penalties.map(|repeat_penalty| Sampling { repeat_penalty, top_p: 0.9, ..base.clone() }));
    settings.extend(penalties.map(|repeat_penalty| Sampling { repeat_penalty, temperature: 0.0, ..base.clone() }));
    for (presence_penalty, frequency_penalty) in [(2.0, 0.0), (0.0, 2.0), (-2.0, 0.3), (0.1, -2.0)] {
        let both = Sampling { presence_penalty, frequency_penalty, ..base.clone() };
        settings.push(Sampling { temperature: 0.0, ..both.clone() });
        settings.push(Sampling { repeat_penalty: 1.3, top_p: 0.9, ..both });
    }
    for bias in [-100.0, -0.37, 4.2, 100.0, BANNED] {
        let biased =
            Sampling { logit_bias: (0..VOCAB as u32).step_by(7).map(|id| (id, bias)).collect(), ..base.clone() };
        settings.push(Sampling { temperature: 0.0, ..biased.clone() });
        settings.push(Sampling { repeat_penalty: 1.3, frequency_penalty: 0.7, top_k: 40, ..biased });
    }
    settings
}

/// Tokens that may be chosen: every so many.
fn every(nth: usize) -> Vec<u32> {
    let mut words = vec![0; VOCAB.div_ceil(32)];
    (0..VOCAB).step_by(nth).for_each(|id| words[id / 32] |= 1 << (id % 32));
    words
}

#[test]
fn host_and_device_choose_the_same_tokens() {
    let device = Device::open();
    let seen: BTreeSet<u32> = (0..VOCAB as u32).filter(|id| id % 3 == 0).collect();
    for (row, logits) in rows().iter().enumerate() {
        for sampling in settings() {
            sampling.check().unwrap_or_else(|error| panic!("{sampling:?}: {error}"));
            let (mut sampler, mut step) = (Sampler::new(&sampling), StepSampling::new(&sampling));
            let mut seen = if sampling.repeat_penalty == 1.0 { BTreeSet::new() } else { seen.clone() };
            seen.iter().for_each(|token| sampler.observe(*token));
            device.begin(&sampling.logit_bias, None);
            for draw in 0..3 {
                let host = sampler.sample(&mut logits.clone()).unwrap_or(u32::MAX);
                let found = device.choose(logits, &seen, &step);
                assert_eq!(found, host, "row {row}, draw {draw}, {sampling:?}");
                assert_ne!(host, u32::MAX, "row {row}, draw {draw}, {sampling:?}");
                seen.extend((sampling.repeat_penalty != 1.0).then_some(host));
                step.advance();
            }
        }
    }
}

#[test]
fn host_and_device_choose_the_same_of_what_is_allowed() {
    let device = Device::open();
    for (row, logits) in rows().iter().enumerate() {
        for sampling in settings() {
            for nth in [1, 2, 37] {
                let allowed = every(nth);
                device.begin(&sampling.logit_bias, Some(&allowed));
                let mut sampler = Sampler::new(&sampling);
                let mut step = StepSampling { masked: true, ..StepSampling::new(&sampling) };
                let mut seen = BTreeSet::new();
                for draw in 0..2 {
                    let host = sampler.sample_among(&mut logits.clone(), Some(&allowed)).unwrap_or(u32::MAX);
                    let found = device.choose(logits, &seen, &step);
                    assert_eq!(found, host, "row {row}, draw {draw}, every {nth}th, {sampling:?}");
                    assert!(
                        (found as usize).is_multiple_of(nth),
                        "row {row}, draw {draw}, every {nth}th, {sampling:?}"
                    );
                    seen.extend((sampling.repeat_penalty != 1.0).then_some(host));
                    step.advance();
                }
            }
        }
    }
    // Of tokens that are not finite, and of none.
    let mut some = [0; VOCAB.div_ceil(32)];
    some[0] = 1 << 3 | 1 << 4 | 1 << 5;
    for allowed in [some, [0; VOCAB.div_ceil(32)]] {
        device.begin(&[], Some(&allowed));
        for temperature in [0.0, 1.0] {
            let sampling = Sampling { temperature, ..Sampling::default() };
            let step = StepSampling { masked: true, ..StepSampling::new(&sampling) };
            assert_eq!(device.choose(&rows()[1], &BTreeSet::new(), &step), u32::MAX, "{sampling:?}");
            assert_eq!(Sampler::new(&sampling).sample_among(&mut rows()[1].clone(), Some(&allowed)), None);
        }
    }
}

#[test]
fn tokens_are_counted_for_who_has_a_penalty() {
    let device = Device::open();
    let logits = &rows()[0];
    for (frequency_penalty, counted) in [(0.0, 0), (-0.5, 4)] {
        let sampling = Sampling { frequency_penalty, ..Sampling::default() };
        device.begin(&[], None);
        for _ in 0..4 {
            device.choose(logits, &BTreeSet::new(), &StepSampling::new(&sampling));
        }
        let best = forge_runtime::sampler::greedy(logits).expect("finite logits") as usize;
        assert_eq!(device.times()[best], counted, "the penalty below 0 brings the token again");
        assert_eq!(device.times().iter().sum::<u32>(), counted);
    }
}

#[test]
fn the_narrowest_filters_take_the_most_probable_token() {
    let device = Device::open();
    let base = Sampling { temperature: 1.0, seed: 3, ..Sampling::default() };
    let narrow = [
        Sampling { temperature: f32::MIN_POSITIVE, ..base.clone() },
        Sampling { top_p: LEAST_TOP_P, temperature: 100.0, ..base.clone() },
        Sampling { top_p: 1e-12, temperature: 100.0, ..base.clone() },
        Sampling { top_k: 1, temperature: 100.0, ..base.clone() },
        Sampling { min_p: 1.0, ..base },
    ];
    let logits = &rows()[0];
    let greedy = forge_runtime::sampler::greedy(logits).expect("finite logits");
    for sampling in narrow {
        assert_eq!(Sampler::new(&sampling).sample(&mut logits.clone()), Some(greedy), "{sampling:?}");
        assert_eq!(device.choose(logits, &BTreeSet::new(), &StepSampling::new(&sampling)), greedy, "{sampling:?}");
    }
}
