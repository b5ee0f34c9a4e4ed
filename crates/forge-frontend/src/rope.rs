//! RoPE frequencies, computed in f32 in the order that transformers' `modeling_rope_utils` computes them.

use std::f32::consts::PI;

/// How the plain frequencies of a `theta` are changed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum RopeScaling {
    None,
    /// Every frequency divided by the factor.
    Linear {
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, a ramp between.
    Llama3 {
        factor: f32,
        low_freq_factor: f32,
        high_freq_factor: f32,
        original_context: f32,
    },
    /// YaRN (Peng et al. 2023).
    Yarn(Yarn),
    /// Gemma 4: the first pairs turn, divided by the factor, the others stand still.
    Proportional {
        pairs: usize,
        factor: f32,
    },
    /// Each frequency divided by its own number: GGUF's `rope_freqs`, longrope's factors.
    Divisors {
        divisors: Vec<f32>,
        magnitude: f32,
    },
}

/// YaRN's parameters.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Yarn {
    pub factor: f32,
    pub original_context: f32,
    pub beta_fast: f32,
    pub beta_slow: f32,
    /// Whether the ramp's ends are rounded outwards to whole dimensions.
    pub truncate: bool,
    /// Factor on cos and sin.
    pub magnitude: f32,
}

/// `[dim / 2]` frequencies and the factor on cos and sin.
pub(crate) fn frequencies(theta: f32, dim: usize, scaling: &RopeScaling) -> (Vec<f32>, f32) {
    let base: Vec<f32> = (0..dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / dim as f32)).collect();
    match scaling {
        RopeScaling::None => (base, 1.0),
        RopeScaling::Linear { factor } => (base.into_iter().map(|freq| freq / factor).collect(), 1.0),
        RopeScaling::Proportional { pairs, factor } => {
            let turn = |(i, freq): (usize, f32)| if i < *pairs { freq / factor } else { 0.0 };
            (base.into_iter().enumerate().map(turn).collect(), 1.0)
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
            let low_wavelength = original_context / low_freq_factor;
            let high_wavelength = original_context / high_freq_factor;
            let scale = |freq: f32| {
                let wavelength = 2.0 * PI / freq;
                if wavelength > low_wavelength {
                    return freq / factor;
                }
                if wavelength < high_wavelength {
                    return freq;
                }
                let smooth = (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * freq / factor + smooth * freq
            };
            (base.into_iter().map(scale).collect(), 1.0)
        }
        RopeScaling::Yarn(yarn) => (yarn_frequencies(theta, dim, yarn), yarn.magnitude),
        RopeScaling::Divisors { divisors, magnitude } => {
            // The divisor multiplies the power, as transformers has it for longrope.
            let divide = |(i, divisor): (usize, &f32)| 1.0 / (divisor * theta.powf((2 * i) as f32 / dim as f32));
            (divisors.iter().enumerate().map(divide).collect(), *magnitude)
        }
    }
}

fn yarn_frequencies(theta: f32, dim: usize, yarn: &Yarn) -> Vec<f32> {
    let correction = |rotations: f32| {
        let ratio = f64::from(yarn.original_context) / (f64::from(rotations) * 2.0 * std::f64::consts::PI);
        dim as f64 * ratio.ln() / (2.0 * f64::from(theta).ln())
    };
    let (mut low, mut high) = (correction(yarn.beta_fast), correction(yarn.beta_slow));
    if yarn.truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0) as f32, high.min((dim - 1) as f64) as f32);
    if low == high {
        high += 0.001;
    }
    let frequency = |i: usize| {
        let power = theta.powf((2 * i) as f32 / dim as f32);
        let ramp = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
        let extrapolated = 1.0 - ramp;
        1.0 / (yarn.factor * power) * (1.0 - extrapolated) + 1.0 / power * extrapolated
    };
    (0..dim / 2).map(frequency).collect()
}

/// YaRN's factor on cos and sin: `0.1 * mscale * ln(factor) + 1`.
pub(crate) fn yarn_magnitude(factor: f32, mscale: f32) -> f32 {
    if factor <= 1.0 { 1.0 } else { (0.1 * f64::from(mscale) * f64::from(factor).ln() + 1.0) as f32 }
}

/// Longrope's factor on cos and sin.
pub(crate) fn longrope_magnitude(factor: f32, original_context: f32) -> f32 {
    if factor <= 1.0 {
        return 1.0;
    }
    (1.0 + f64::from(factor).ln() / f64::from(original_context).ln()).sqrt() as f32
}
