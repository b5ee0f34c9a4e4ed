//! Caches in blocks, written and read, right and wrong.

use forge_runtime::verify::*;

use super::families::*;

/// The append and attention over a cache of that type.
macro_rules! checks {
    ($cache:expr) => {
        &[
            check(
                0,
                SOME_ROWS,
                BY_ROW,
                Operation::RopeAppend(RopeAppend {
                    keys_as_values: false,
                    gates: Gates::None,
                    norms_last: false,
                    query_scale: None,
                    heads: 2,
                    kv_heads: 2,
                    head_dim: 32,
                    norms: [None, None, None],
                    inv_freq: &[1.0, 0.3, 0.09, 0.027],
                    interleaved: true,
                    magnitude: 1.0,
                    cache: $cache,
                    wrap: Some(40),
                }),
                &[
                    Argument::read(Role::Qkv, Data::Words(192)),
                    Argument::write(Role::Q, Data::Words(64)),
                    Argument::write(Role::Keys, Data::Cache(64)),
                    Argument::write(Role::Values, Data::Cache(64)),
                    STEP,
                ],
            ),
            check(
                1,
                SOME_ROWS,
                [Dim::Rows, Dim::Const(4)],
                Operation::Attention(Attention {
                    heads: 4,
                    kv_heads: 2,
                    head_dim: 32,
                    value_dim: 32,
                    scale: 0.125,
                    softcap: None,
                    window: Some(24),
                    cache: $cache,
                    wrap: Some(40),
                    half_operands: false,
                    split: None,
                }),
                &[
                    Argument::read(Role::Q, Data::Words(128)),
                    Argument::read(Role::Keys, Data::Cache(64)),
                    Argument::read(Role::Values, Data::Cache(64)),
                    Argument::write(Role::Y, Data::Words(128)),
                    STEP,
                ],
            ),
        ]
    };
}

pub static CACHE_Q8_0: Family = Family {
    slots: 1,
    metal: concat!(
        include_str!("../fixtures/plain_kernels/cache_q8_0.metal"),
        include_str!("../fixtures/plain_kernels/cache_kernels.metal")
    ),
    specs: &[spec("rope_append"), spec("attention")],
    checks: checks!(CacheType::Q8_0),
    faults: &[
        // Codes cut off, scales of another divisor and of both heads, codes or scales of a head at the other's place.
        ("char(round(values[i] / scale))", "char(values[i] / scale)", "rope_append"),
        ("largest / 127.0f", "largest / 126.5f", "rope_append"),
        ("[head] = half(scale)", "[head ^ 1] = half(scale)", "rope_append"),
        ("[head * 32 + i] = char", "[(head ^ 1) * 32 + i] = char", "rope_append"),
        ("float largest = 0.0f", "float largest = 1.5f", "rope_append"),
        ("values, position % 40, head % 2, own", "values, position % 39, head % 2, own", "rope_append"),
        // Codes without their signs, scales of the other head, and one key too many.
        ("float(((device const char*)own)[head", "float(own[head", "attention"),
        ("(own + 64))[head])", "(own + 64))[head ^ 1])", "attention"),
        ("stored(values, key % 40, head / 2, i)", "stored(values, key % 40, head % 2, i)", "attention"),
        ("position - 23", "position - 24", "attention"),
    ],
};

pub static CACHE_Q4_0: Family = Family {
    slots: 1,
    metal: concat!(
        include_str!("../fixtures/plain_kernels/cache_q4_0.metal"),
        include_str!("../fixtures/plain_kernels/cache_kernels.metal")
    ),
    specs: &[spec("rope_append"), spec("attention")],
    checks: checks!(CacheType::Q4_0),
    faults: &[
        // Codes cut off, the largest magnitude without its sign, neighbours in the wrong order, scales of the other head.
        ("values[i] / scale + 8.5f", "values[i] / scale + 8.0f", "rope_append"),
        ("(high > -low ? high : low) / -8.0f", "max(high, -low) / 8.0f", "rope_append"),
        ("first | second << 4", "second | first << 4", "rope_append"),
        ("[head] = half(scale)", "[head ^ 1] = half(scale)", "rope_append"),
        // Codes that stand for another number, of the wrong half of their byte, of the other head; its scale.
        ("- 8.0f) * float", "- 7.0f) * float", "attention"),
        ("i % 2 == 0 ? codes", "i % 2 == 1 ? codes", "attention"),
        ("own[head * 16 + i / 2];", "own[(head ^ 1) * 16 + i / 2];", "attention"),
        ("(own + 32))[head])", "(own + 32))[head ^ 1])", "attention"),
    ],
};
