//! Attention over latents, right and wrong.

use forge_runtime::verify::*;

use super::families::{BY_ROW, Family, GAMMA, ONE_ROW, SOME_ROWS, STEP, WEIGHTS, check, spec};

const SIZES: LatentSizes = LatentSizes { heads: 2, latent: 8, rope: 2, nope: 4, value: 3 };
const APPEND: LatentAppend = LatentAppend {
    before: 4,
    norms_queries: false,
    latent: 8,
    rope: 2,
    eps: 1e-2,
    inv_freq: &[0.3],
    interleaved: true,
    magnitude: 1.0,
    cache: CacheType::F32,
};
const QUERIES: LatentQueries = LatentQueries {
    sizes: SIZES,
    width: 22,
    keys: Matrix { format: Format::F32, rows: 16, cols: 4 },
    by_key: false,
    inv_freq: &[0.3],
    interleaved: true,
    magnitude: 1.0,
};
const ATTENTION: LatentAttention = LatentAttention {
    heads: 2,
    latent: 8,
    rope: 2,
    scale: 0.25,
    cache: CacheType::F32,
    half_operands: false,
    split: None,
};
const EXPAND: LatentExpand = LatentExpand {
    sizes: SIZES,
    heads: HeadMatrix::Keys { matrix: QUERIES.keys, by_key: false },
    cache: CacheType::F32,
    half_operands: false,
};
const BY_POSITION: [Dim; 2] = [Dim::PositionTiles(1), Dim::Const(1)];
const SPLIT: Split = Split { above: 8, positions: 4, most: 4, window: None };
const LATENTS: Argument = Argument::read(Role::Latents, Data::Cache(10));
const Q: Argument = Argument::read(Role::Q, Data::Words(20));

pub static LATENT_ATTENTION: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/latents.metal"),
    slots: 1,
    specs: &[
        spec("append"),
        spec("append_both"),
        spec("queries"),
        spec("queries_by_key"),
        spec("attention"),
        spec("attention_part"),
        spec("values"),
        spec("expand_keys"),
        spec("expand_values"),
        spec("rotate"),
    ],
    checks: &[
        check(
            0,
            SOME_ROWS,
            BY_ROW,
            Operation::LatentAppend(APPEND),
            &[
                Argument::read(Role::Input, Data::Words(14)),
                GAMMA,
                Argument::write(Role::Latents, Data::Cache(10)),
                STEP,
            ],
        ),
        check(
            1,
            SOME_ROWS,
            BY_ROW,
            Operation::LatentAppend(LatentAppend { norms_queries: true, ..APPEND }),
            &[
                Argument::read(Role::Input, Data::Words(14)),
                GAMMA,
                Argument::read(Role::QGamma, Data::Tensor("gamma")),
                Argument::write(Role::Latents, Data::Cache(10)),
                Argument::write(Role::Y, Data::Words(4)),
                STEP,
            ],
        ),
        check(
            2,
            SOME_ROWS,
            BY_ROW,
            Operation::LatentQueries(QUERIES),
            &[WEIGHTS, Argument::read(Role::Input, Data::Words(22)), Argument::write(Role::Q, Data::Words(20)), STEP],
        ),
        check(
            3,
            SOME_ROWS,
            BY_ROW,
            Operation::LatentQueries(LatentQueries {
                width: 12,
                keys: Matrix { format: Format::F32, rows: 8, cols: 8 },
                by_key: true,
                ..QUERIES
            }),
            &[WEIGHTS, Argument::read(Role::Input, Data::Words(12)), Argument::write(Role::Q, Data::Words(20)), STEP],
        ),
        check(
            4,
            SOME_ROWS,
            [Dim::Rows, Dim::Const(2)],
            Operation::LatentAttention(ATTENTION),
            &[Q, LATENTS, Argument::write(Role::Y, Data::Words(16)), STEP],
        ),
        check(
            5,
            ONE_ROW,
            [Dim::Const(2), Dim::Parts],
            Operation::LatentAttention(LatentAttention { split: Some(SPLIT), ..ATTENTION }),
            &[Q, LATENTS, Argument::write(Role::Y, Data::Words(4 * 2 * 10)), STEP],
        ),
        check(
            6,
            SOME_ROWS,
            BY_ROW,
            Operation::LatentValues(LatentValues {
                sizes: SIZES,
                values: Matrix { format: Format::F32, rows: 6, cols: 8 },
            }),
            &[WEIGHTS, Argument::read(Role::Input, Data::Words(16)), Argument::write(Role::Y, Data::Words(6))],
        ),
        check(
            7,
            SOME_ROWS,
            BY_POSITION,
            Operation::LatentExpand(EXPAND),
            &[WEIGHTS, LATENTS, Argument::write(Role::Keys, Data::Positions(12)), STEP],
        ),
        check(
            8,
            SOME_ROWS,
            BY_POSITION,
            Operation::LatentExpand(LatentExpand {
                heads: HeadMatrix::Values(Matrix { format: Format::F32, rows: 6, cols: 8 }),
                ..EXPAND
            }),
            &[WEIGHTS, LATENTS, Argument::write(Role::Values, Data::Positions(6)), STEP],
        ),
        check(
            9,
            SOME_ROWS,
            BY_ROW,
            Operation::LatentRotate(LatentRotate {
                sizes: SIZES,
                width: 14,
                inv_freq: &[0.3],
                interleaved: true,
                magnitude: 1.0,
            }),
            &[Argument::read(Role::Input, Data::Words(14)), Argument::write(Role::Q, Data::Words(12)), STEP],
        ),
    ],
    faults: &[
        // The key normed too, the norm of other elements, no gamma, the wrong position, the wrong pairs.
        ("sum / 8.0f + 1.0e-2f", "sum / 10.0f + 1.0e-2f", "append"),
        ("input + row * 14 + 4", "input + row * 14", "append"),
        ("source[i] * scale * gamma[i]", "source[i] * scale", "append"),
        ("target = latents + step[row].position", "target = latents + step[0].position", "append"),
        ("turn(source + 8, target + 8, 0.3f", "turn(source + 8, target + 8, 0.31f", "append"),
        ("source[i] * precise::rsqrt(own / 4.0f + 1.0e-2f) * q_gamma[i]", "source[i] * q_gamma[i]", "append_both"),
        ("source[4 + i] * factor", "source[4 + i] * precise::rsqrt(square / 8.0f)", "append_both"),
        // Another head's matrix, a row's other elements, no rotation.
        ("weights[(head * 8 + l) * 4 + n]", "weights[(l * 2 + head) * 4 + n]", "queries"),
        ("input + row * 22 + head * 6", "input + row * 22 + head * 4", "queries"),
        (
            "turn(source + 4, target + 8, 0.3f * float(step[row].position))",
            "turn(source + 4, target + 8, 0.0f)",
            "queries",
        ),
        ("weights[(head * 4 + n) * 8 + l]", "weights[(head * 8 + l) * 4 + n]", "queries_by_key"),
        ("turn(own + 4, wide + 8", "turn(own + 3, wide + 8", "queries_by_key"),
        // Scores without the shared key, one position too few, values that begin elsewhere.
        ("precise::exp(0.25f * sum - highest)", "precise::exp(0.3f * sum - highest)", "attention"),
        ("sums[i] += weight * latents[at * 10 + i]", "sums[i] += weight * latents[at * 10 + 2 + i]", "attention"),
        ("kept[i] += share * latents[at * 10 + i]", "kept[i] += latents[at * 10 + i]", "attention_part"),
        ("0.25f * 1.44269504f * dot", "0.25f * dot", "attention_part"),
        ("weights[(head * 3 + v) * 8 + l]", "weights[(v * 2 + head) * 8 + l]", "values"),
        ("input[(row * 2 + head) * 8 + l]", "input[row * 16 + l]", "values"),
        // The matrix as it would lie otherwise, no shared key, another position's; a value that is not written.
        ("made += weights[(8 * head + l) * 4 + n]", "made += weights[(4 * head + n) * 8 + l]", "expand_keys"),
        ("own_key[5] = latents[at * 10 + 9]", "own_key[5] = 0.0f", "expand_keys"),
        ("own_key[4] = latents[at * 10 + 8]", "own_key[4] = latents[8]", "expand_keys"),
        ("value_of_head += weights[i * 8 + l]", "value_of_head += weights[i * 8]", "expand_values"),
        ("values[at * 6 + i] = value_of_head", "if (at > 0) values[at * 6 + i] = value_of_head", "expand_values"),
        // No rotation, another head's elements.
        (
            "turn(plain + 4, rotated + 4, 0.3f * float(step[row].position))",
            "turn(plain + 4, rotated + 4, 0.0f)",
            "rotate",
        ),
        ("plain = input + row * 14 + head * 6", "plain = input + row * 14", "rotate"),
    ],
};
