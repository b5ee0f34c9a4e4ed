//! Attention with a score of each head that has no value, right and wrong.

use forge_runtime::verify::*;

use super::families::*;

const PLAIN: Attention = Attention {
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    value_dim: 8,
    scale: 0.25,
    softcap: None,
    window: None,
    cache: CacheType::F32,
    wrap: None,
    half_operands: false,
    split: None,
};

const fn arguments(result: usize) -> [Argument<'static>; 6] {
    [
        Argument::read(Role::Q, Data::Words(32)),
        Argument::read(Role::Keys, Data::Cache(16)),
        Argument::read(Role::Values, Data::Cache(16)),
        Argument::write(Role::Y, Data::Words(result)),
        Argument::read(Role::Sinks, Data::Tensor("gamma")),
        STEP,
    ]
}

pub static SINKS: Family = Family {
    slots: 1,
    metal: include_str!("../fixtures/plain_kernels/attention_sinks.metal"),
    specs: &[spec("attention"), spec("attention_part")],
    checks: &[
        check(0, SOME_ROWS, [Dim::Rows, Dim::Const(4)], Operation::Attention(PLAIN), &arguments(32)),
        check(
            1,
            ONE_ROW,
            [Dim::Const(4), Dim::Parts],
            Operation::Attention(Attention { window: Some(100), split: Some(WINDOWED), ..PLAIN }),
            &arguments(4 * 4 * 10),
        ),
    ],
    faults: &[
        // No sink, two of them, another head's, one that is scaled, and one that has a value.
        ("float total = precise::exp(sinks[head]);", "float total = 0.0f;", "attention"),
        ("precise::exp(sinks[head])", "2.0f * precise::exp(sinks[head])", "attention"),
        ("precise::exp(sinks[head])", "precise::exp(sinks[head ^ 1])", "attention"),
        ("precise::exp(sinks[head])", "precise::exp(0.25f * sinks[head])", "attention"),
        ("sums[i] / total;", "(sums[i] + 0.01f * precise::exp(sinks[head])) / total;", "attention"),
        ("float total_of_part = precise::exp2(own - highest);", "float total_of_part = 0.0f;", "attention_part"),
        // One in every part, and one in powers of e.
        ("group.y == 0 ? sinks[head] * 1.44269504f : -1.0e30f", "sinks[head] * 1.44269504f", "attention_part"),
        ("sinks[head] * 1.44269504f", "sinks[head]", "attention_part"),
    ],
};
