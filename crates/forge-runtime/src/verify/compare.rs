//! What a kernel wrote against what it should have written, element by element.

use std::collections::BTreeMap;

use super::table::Role;

/// Below this, numbers may become zero.
const TINY: f64 = 1e-30;

/// Everything that was compared for one run of a kernel.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// The element that came closest to its bound, or furthest beyond it.
    pub worst: Option<Worst>,
    /// Largest value expected of each argument.
    largest: BTreeMap<Role, f64>,
    /// Elements compared.
    pub elements: usize,
    /// Elements beyond their bounds.
    pub failed: usize,
}

/// One element.
#[derive(Debug, Clone, Copy)]
pub(super) struct Worst {
    pub role: Role,
    pub index: usize,
    pub found: f64,
    pub expected: f64,
    pub error: f64,
    pub bound: f64,
    share: f64,
}

impl Comparison {
    /// `found` should be within `bound` of `expected`.
    pub fn number(&mut self, role: Role, index: usize, found: f64, expected: f64, bound: f64) {
        let bound = bound + TINY;
        let error = (found - expected).abs();
        // What is not a number is infinitely wrong, and so is what has no bound.
        let share = if error.is_nan() || bound.is_nan() { f64::INFINITY } else { error / bound };
        self.elements += 1;
        let largest = self.largest.entry(role).or_default();
        *largest = largest.max(expected.abs());
        if share > 1.0 {
            self.failed += 1;
        }
        if self.worst.is_none_or(|worst| share > worst.share) {
            self.worst = Some(Worst { role, index, found, expected, error, bound, share });
        }
    }

    /// Why the run does not pass: elements beyond their bounds, or none that were compared.
    pub fn fault(&self) -> Option<String> {
        let Some(worst) = self.worst else { return Some("nothing was compared".to_owned()) };
        (self.failed > 0).then(|| {
            format!(
                "{} of {} elements are beyond their bounds; worst: {:?}[{}] is {}, expected {} within {:.1e}",
                self.failed, self.elements, worst.role, worst.index, worst.found, worst.expected, worst.bound
            )
        })
    }

    /// The worst error relative to the largest value of its argument.
    pub fn relative(&self) -> f64 {
        let Some(worst) = self.worst.filter(|worst| worst.error != 0.0) else { return 0.0 };
        worst.error / self.largest.get(&worst.role).copied().unwrap_or_default()
    }

    /// `found` should be `expected`.
    pub fn exact(&mut self, role: Role, index: usize, found: u32, expected: u32) {
        self.number(role, index, found.into(), expected.into(), 0.0);
    }

    /// `found` should have been written: outputs are filled with something that is not a number first.
    pub fn written(&mut self, role: Role, index: usize, found: f32) {
        if found.is_nan() {
            self.number(role, index, found.into(), 0.0, 0.0);
        }
    }
}

/// At most `most` of `0..count`, evenly spread, the first and the last among them.
pub(super) fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| i * (count - 1) / (most - 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::Role;
    use super::Comparison;

    #[test]
    fn nothing_compared_is_a_fault() {
        assert_eq!(Comparison::default().fault().as_deref(), Some("nothing was compared"));
        let mut comparison = Comparison::default();
        comparison.number(Role::Y, 0, 1.0, 1.0, 0.0);
        assert_eq!(comparison.fault(), None);
    }

    #[test]
    fn what_is_not_a_number_is_beyond_every_bound() {
        for (found, expected, bound) in [(f64::NAN, 1.0, 1e9), (1.0, f64::NAN, 1e9), (1.0, 1.0, f64::NAN)] {
            let mut comparison = Comparison::default();
            comparison.number(Role::Y, 3, found, expected, bound);
            // Nor does a later element that fits hide it.
            comparison.number(Role::Y, 4, 1.0, 1.0, 1.0);
            let fault = comparison.fault().expect("a fault");
            assert!(fault.starts_with("1 of 2 elements are beyond their bounds; worst: Y[3]"), "{fault}");
        }
    }
}
