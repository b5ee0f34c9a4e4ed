//! How far a kernel's numbers may be from a reference's.
//!
//! A bound is made of the roundings that the kernel has to make, as [`sum_error`] counts them, and where operands are rounded
//! to half, of those. What does not fit it is a fault.

/// Half a unit in the last place of 1.0f: the relative error of one rounding.
pub(super) const ROUNDING: f64 = 1.0 / 16_777_216.0;
/// The same for binary16.
pub(super) const HALF_ROUNDING: f64 = 1.0 / 2048.0;
/// Half the distance between the smallest halves.
pub(super) const SMALLEST_HALF: f64 = 1.0 / 33_554_432.0;
/// Standard deviations of accumulated rounding that are allowed for.
pub(super) const DEVIATIONS: f64 = 6.0;
/// Roundings of a product, a division or a function that is given to a few units in the last place.
pub(super) const FEW: f64 = 8.0 * ROUNDING;

/// Relative error of a sum of `terms` rounded terms. Rounding errors are independent, so they grow with the square root of
/// their number (Higham and Mary, "A new approach to probabilistic rounding error analysis", 2019): relative to the sum of
/// the terms' sizes, and where the terms have random signs, as with the inputs here, relative to the root of the sum of
/// their squares ("Sharper probabilistic backward error analysis for basic linear algebra kernels with random data",
/// 2020). A few roundings come on top for each term and for the result.
pub(super) fn sum_error(terms: usize) -> f64 {
    DEVIATIONS * ((terms + 16) as f64).sqrt() * ROUNDING
}

/// A number and how far the kernel's may be from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Approximate {
    pub value: f64,
    pub bound: f64,
}

impl Approximate {
    /// A number that the kernel has as it is.
    pub fn exact(value: f64) -> Self {
        Self { value, bound: 0.0 }
    }

    /// Times a factor that is itself off by `error`, relatively.
    pub fn times(self, factor: f64, error: f64) -> Self {
        let value = self.value * factor;
        Self { value, bound: self.bound * factor.abs() + value.abs() * (error + ROUNDING) }
    }

    /// Plus a number.
    pub fn plus(self, term: f64) -> Self {
        let rounding = 2.0 * ROUNDING * (self.value.abs() + term.abs());
        Self { value: self.value + term, bound: self.bound + rounding }
    }

    /// Bounded as `cap * tanh(value / cap)`.
    pub fn softcap(self, cap: Option<f32>) -> Self {
        let Some(cap) = cap.map(f64::from) else { return self };
        let value = cap * (self.value / cap).tanh();
        // The slope is 1 at most.
        Self { value, bound: self.bound + 2.0 * FEW * self.value.abs().min(cap) }
    }
}

/// Square of the error of a product whose factors are rounded to half.
pub(super) fn half_variance(a: f64, b: f64) -> f64 {
    2.0 * (HALF_ROUNDING * a * b).powi(2) + SMALLEST_HALF.powi(2) * (a * a + b * b)
}
