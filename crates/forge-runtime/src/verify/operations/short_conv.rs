//! The short convolution between two gates, and the rows that it carries from step to step.

use super::super::compare::Comparison;
use super::super::error::{Approximate, FEW, sum_error};
use super::super::run::{Carried, Case, Input, Run};
use super::super::table::Role;
use super::Reference;

/// See [`Operation::ShortConv`](super::Operation::ShortConv).
pub(super) struct ShortConv {
    pub channels: usize,
    pub taps: usize,
}

impl Reference for ShortConv {
    fn describe(&self) -> String {
        format!("{} channels, {} taps", self.channels, self.taps)
    }

    fn cases(&self, rows: usize, context: usize) -> Vec<Case> {
        Case::of_state(rows, context)
    }

    fn inputs(&self, _: &Case) -> Vec<(Role, Input)> {
        vec![(Role::Input, Input::UNIT), (Role::State, Input::UNIT)]
    }

    fn check(&self, run: &Run<'_>, out: &mut Comparison) {
        let Self { channels, taps } = *self;
        let held = taps - 1;
        let (input, weights) = (run.given(Role::Input), run.given(Role::Taps));
        let bias = if run.has(Role::Bias) { run.given(Role::Bias) } else { vec![0.0; channels] };
        let (found, left) = (run.left(Role::Y), run.left(Role::State));
        let given = run.given(Role::State);
        let mut untouched = vec![true; left.len()];
        for Carried { rows, before, start } in run.carried(held * channels) {
            // What is convolved, from `held` rows before the step on: those before the sequence are zeros.
            let before = before.unwrap_or_else(|| vec![0.0; held * channels]);
            let mut convolved: Vec<Approximate> =
                before.iter().map(|&value| Approximate::exact(value.into())).collect();
            for (index, row) in rows.into_iter().enumerate() {
                let values = &input[row * 3 * channels..][..3 * channels];
                let gated = (0..channels).map(|i| f64::from(values[i]) * f64::from(values[2 * channels + i]));
                convolved.extend(gated.map(|value| Approximate::exact(1.0).times(value, 0.0)));
                for channel in 0..channels {
                    let term = |tap: usize| {
                        let value = convolved[(index + tap) * channels + channel].value;
                        value * f64::from(weights[channel * taps + tap])
                    };
                    let terms: Vec<f64> = (0..taps).map(term).chain([f64::from(bias[channel])]).collect();
                    let size: f64 = terms.iter().map(|term| term.abs()).sum();
                    let sum = Approximate { value: terms.iter().sum(), bound: size * (sum_error(taps) + FEW) };
                    let expected = sum.times(values[channels + channel].into(), FEW);
                    let at = row * channels + channel;
                    out.number(Role::Y, at, found[at].into(), expected.value, expected.bound);
                }
            }
            // The last rows are carried on.
            let carried = &convolved[convolved.len() - held * channels..];
            for (at, expected) in (start..).zip(carried) {
                out.number(Role::State, at, left[at].into(), expected.value, expected.bound);
                untouched[at] = false;
            }
        }
        // The other copy stays as it was, and so do other sequences.
        for at in (0..left.len()).filter(|&at| untouched[at]) {
            out.exact(Role::State, at, left[at].to_bits(), given[at].to_bits());
        }
    }
}
