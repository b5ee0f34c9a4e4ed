//! Kernels that carry a recurrent state, and the gates of attention.

use forge_runtime::verify::*;

use super::families::{BY_ROW, Family, ONCE, SOME_ROWS, STEP, Y8, check, spec};
use super::slots::mixed;

pub static RECURRENT: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/recurrent.metal"),
    slots: 1,
    specs: &[spec("short_conv"), spec("short_conv_biased")],
    checks: &[
        check(
            0,
            SOME_ROWS,
            ONCE,
            Operation::ShortConv { channels: 8, taps: 4 },
            &[
                Argument::read(Role::Input, Data::Words(24)),
                Argument::read(Role::Taps, Data::Tensor("gamma")),
                Argument::update(Role::State, Data::State(24)),
                Y8,
                STEP,
            ],
        ),
        check(
            1,
            SOME_ROWS,
            ONCE,
            Operation::ShortConv { channels: 8, taps: 3 },
            &[
                Argument::read(Role::Input, Data::Words(24)),
                Argument::read(Role::Taps, Data::Tensor("gamma")),
                Argument::read(Role::Bias, Data::Tensor("gamma")),
                Argument::update(Role::State, Data::State(16)),
                Y8,
                STEP,
            ],
        ),
    ],
    faults: &[
        // The gates in each other's place.
        ("y[row * 8 + i] = input[row * 24 + 8 + i] * sum", "y[row * 8 + i] = input[row * 24 + i] * sum", "short_conv"),
        ("taps[i * 4 + 3] * newest", "taps[i * 4] * newest", "short_conv"),
        // The copy that the step before left, whatever it was.
        ("carried<4>(state, window, step.position)", "carried<4>(state, window, step.position + 1)", "short_conv"),
        // A state before the first row.
        ("carried<4>(state, window, step.position)", "carried<4>(state, window, step.position + 2)", "short_conv"),
        ("(step.position + step.rows - 1) % 2 * 24", "(step.position + step.rows) % 2 * 24", "short_conv"),
        ("window[16 + i] = newest;\n", "window[16 + i] = y[row * 8 + i];\n", "short_conv"),
        ("sum + bias[i]", "sum", "short_conv_biased"),
        // The last row's input without its gate.
        ("window[8 + i] = newest;", "window[8 + i] = input[row * 24 + i];", "short_conv_biased"),
        // What is carried on, in both copies.
        (
            "after[i] = window[i];\n    }\n}\n\nkernel void short_conv_biased",
            "after[i] = state[(step.position + step.rows) % 2 * 24 + i] = window[i];\n    }\n}\n\nkernel void short_conv_biased",
            "short_conv",
        ),
        ("(step.position + step.rows + 1) % 2", "(step.position + step.rows) % 2", "short_conv_biased"),
    ],
};

const DELTA: GatedDelta =
    GatedDelta { key_heads: 2, value_heads: 4, key_dim: 4, value_dim: 4, taps: 4, tiled_heads: false, eps: 1e-5 };
const BY_HEAD: [Dim; 2] = [Dim::Const(4), Dim::Const(1)];

pub static GATED_DELTA: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/gated_delta.metal"),
    slots: 1,
    specs: &[
        spec("gated_delta"),
        spec("head_gate"),
        spec("gated_append"),
        spec("head_gate_last"),
        spec("append_before_gates"),
    ],
    checks: &[
        check(
            0,
            SOME_ROWS,
            BY_HEAD,
            Operation::GatedDelta(DELTA),
            &[
                Argument::read(Role::Input, Data::Words(56)),
                Argument::read(Role::Taps, Data::Tensor("matrix")),
                Argument::read(Role::Decay, Data::Tensor("matrix")),
                Argument::read(Role::TimeBias, Data::Tensor("other")),
                Argument::read(Role::Gamma, Data::Tensor("gamma")),
                Argument::update(Role::State, Data::State(208)),
                Argument::write(Role::Y, Data::Words(16)),
                STEP,
            ],
        ),
        check(
            1,
            SOME_ROWS,
            BY_ROW,
            Operation::HeadGate { heads: 2, head_dim: 8, first: 8, stride: 16, width: 48 },
            &[Argument::read(Role::Qkv, Data::Words(48)), Argument::update(Role::Y, Data::Words(16))],
        ),
        check(
            2,
            SOME_ROWS,
            BY_ROW,
            Operation::RopeAppend(RopeAppend {
                keys_as_values: false,
                gates: Gates::ByHead,
                heads: 2,
                kv_heads: 1,
                head_dim: 8,
                norms: [None, None, None],
                norms_last: false,
                inv_freq: &[],
                interleaved: false,
                magnitude: 1.0,
                query_scale: None,
                cache: CacheType::F32,
                wrap: None,
            }),
            &[
                Argument::read(Role::Qkv, Data::Words(48)),
                Argument::write(Role::Q, Data::Words(16)),
                Argument::write(Role::Keys, Data::Cache(8)),
                Argument::write(Role::Values, Data::Cache(8)),
                STEP,
            ],
        ),
        check(
            3,
            SOME_ROWS,
            BY_ROW,
            Operation::HeadGate { heads: 2, head_dim: 8, first: 32, stride: 8, width: 48 },
            &[Argument::read(Role::Qkv, Data::Words(48)), Argument::update(Role::Y, Data::Words(16))],
        ),
        check(
            4,
            SOME_ROWS,
            BY_ROW,
            Operation::RopeAppend(RopeAppend {
                keys_as_values: false,
                gates: Gates::Last,
                heads: 2,
                kv_heads: 1,
                head_dim: 8,
                norms: [None, None, None],
                norms_last: false,
                inv_freq: &[],
                interleaved: false,
                magnitude: 1.0,
                query_scale: None,
                cache: CacheType::F32,
                wrap: None,
            }),
            &[
                Argument::read(Role::Qkv, Data::Words(48)),
                Argument::write(Role::Q, Data::Words(16)),
                Argument::write(Role::Keys, Data::Cache(8)),
                Argument::write(Role::Values, Data::Cache(8)),
                STEP,
            ],
        ),
    ],
    faults: &[
        // Value heads take key heads in turn.
        ("head / 2", "head % 2", "gated_delta"),
        ("step.position == 0 ? 0.0f : state", "state", "gated_delta"),
        ("(step.position - 1) % 2 * 208", "step.position % 2 * 208", "gated_delta"),
        ("(step.position + step.rows + 1) % 2", "(step.position + step.rows) % 2", "gated_delta"),
        ("own[40 + i] = source[at]", "own[40 + i] = sum", "gated_delta"),
        // The convolution without its activation.
        ("mixed[i] = silu(sum)", "mixed[i] = sum", "gated_delta"),
        ("unit(mixed, 1.0e-6f)", "unit(mixed, 1.0e-3f)", "gated_delta"),
        ("        unit(mixed + 4, 1.0e-6f);\n", "", "gated_delta"),
        ("-source[48 + head]", "-source[52 + head]", "gated_delta"),
        (" + time_bias[head]", "", "gated_delta"),
        // The key's share of the state before its decay.
        (
            "own[v * 4 + k] *= keep;\n                held += own[v * 4 + k] * mixed[4 + k];",
            "held += own[v * 4 + k] * mixed[4 + k];\n                own[v * 4 + k] *= keep;",
            "gated_delta",
        ),
        ("write * (mixed[8 + v] - held)", "write * mixed[8 + v] - held", "gated_delta"),
        ("read[v] = 0.5f * sum", "read[v] = sum", "gated_delta"),
        ("0.25f * square + 1.0e-5f", "0.25f * square + 1.0e-6f", "gated_delta"),
        // The gate before the norm.
        ("read[v] = 0.5f * sum", "read[v] = 0.5f * sum * silu(source[32 + head * 4 + v])", "gated_delta"),
        ("(i < 8 ? 8 : 16) + i", "16 + i", "head_gate"),
        ("row * 48 + 16 + i]", "row * 48 + 8 + i]", "gated_append"),
        ("gates[48 * row + 32 + i]", "gates[48 * row + 16 + i]", "head_gate_last"),
        ("(1.0f + precise::exp(-last))", "(1.0f + precise::exp(last))", "head_gate_last"),
        ("before[48 * row + 16 + i]", "before[48 * row + 24 + i]", "append_before_gates"),
        ("before[48 * row + i]", "before[32 * row + i]", "append_before_gates"),
        ("row * 48 + 32 + i]", "row * 48 + 24 + i]", "gated_append"),
        ("precise::exp(-gate)", "precise::exp(-2.0f * gate)", "head_gate"),
    ],
};

pub static RECURRENT_SLOTS: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/recurrent_slots.metal"),
    slots: 3,
    specs: &[spec("conv_slots")],
    checks: &[mixed(
        0,
        Operation::ShortConv { channels: 8, taps: 3 },
        &[
            Argument::read(Role::Input, Data::Words(24)),
            Argument::read(Role::Taps, Data::Tensor("gamma")),
            Argument::update(Role::State, Data::State(16)),
            Y8,
            STEP,
        ],
    )],
    faults: &[
        // Every sequence in the first one's state.
        ("step[first].slot * 32", "0 * step[first].slot", "conv_slots"),
        // The copy that the sequence's first row leaves.
        ("step[last].position % 2", "step[first].position % 2", "conv_slots"),
        // Each row by itself.
        ("row < step[0].rows", "row < first + 1", "conv_slots"),
    ],
};
