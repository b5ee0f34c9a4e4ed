//! The plain kernels, what `verify` knows of them, and the faults. One file, long as it is, because it is one list.

use forge_runtime::gpu::KernelSpec;
use forge_runtime::verify::*;

pub use crate::caches::{CACHE_Q4_0, CACHE_Q8_0};
use crate::latents::LATENT_ATTENTION;
use crate::mixtures::MIXTURES;
use crate::recurrent::{GATED_DELTA, RECURRENT, RECURRENT_SLOTS};
pub use crate::sinks::SINKS;

pub const fn spec(name: &'static str) -> KernelSpec {
    KernelSpec { name, threads: 1, threadgroup_bytes: 0 }
}

/// Kernels of one thread each, in one file, and ways to get them wrong.
pub struct Family {
    pub metal: &'static str,
    pub specs: &'static [KernelSpec],
    pub checks: &'static [KernelCheck],
    /// What stands in the file, what is put in its place, and the kernel that is wrong then.
    pub faults: &'static [(&'static str, &'static str, &'static str)],
    /// Sequences that the program holds.
    pub slots: usize,
}

pub const GAMMA: Argument = Argument::read(Role::Gamma, Data::Tensor("gamma"));
pub const TABLE: Argument = Argument::read(Role::Table, Data::Tensor("matrix"));
pub const WEIGHTS: Argument = Argument::read(Role::Weights, Data::Tensor("matrix"));
const NEXT_TOKEN: Argument = Argument::read(Role::NextToken, Data::Slots(1));
pub const INPUT: Argument = Argument::read(Role::Input, Data::Words(32));
pub const STEP: Argument = Argument::read(Role::Step, Data::Params);
const MATRIX: Matrix = Matrix { format: Format::F32, rows: 8, cols: 32 };
pub const SOME_ROWS: &[usize] = &[1, 7];
pub const ONE_ROW: &[usize] = &[1];

pub const fn check(
    kernel: usize,
    rows: &'static [usize],
    grid: [Dim; 2],
    operation: Operation<'static>,
    arguments: &'static [Argument<'static>],
) -> KernelCheck {
    KernelCheck {
        kernel,
        layer: None,
        rows,
        mixed: false,
        grid: [grid[0], grid[1], Dim::Const(1)],
        operation,
        arguments,
    }
}

pub const BY_ROW: [Dim; 2] = [Dim::Rows, Dim::Const(1)];
pub const ONCE: [Dim; 2] = [Dim::Const(1), Dim::Const(1)];

pub static EMBED: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/embed.metal"),
    slots: 1,
    specs: &[spec("embed"), spec("embed_scaled"), spec("embed_normed")],
    checks: &[
        check(0, SOME_ROWS, BY_ROW, EMBED_TABLE, &[TABLE, NEXT_TOKEN, Argument::write(Role::X, Data::Words(32)), STEP]),
        check(
            1,
            ONE_ROW,
            ONCE,
            EMBED_TABLE,
            &[
                TABLE,
                NEXT_TOKEN,
                Argument::write(Role::X, Data::Words(32)),
                GAMMA,
                Argument::write(Role::Scaled, Data::Words(32)),
                Argument::write(Role::Sums, Data::Words(2)),
                STEP,
            ],
        ),
        check(
            2,
            SOME_ROWS,
            BY_ROW,
            Operation::Embed { table: MATRIX, scale: 0.5, norm_eps: Some(1e-2) },
            &[TABLE, NEXT_TOKEN, Argument::write(Role::X, Data::Words(32)), STEP],
        ),
    ],
    faults: &[
        ("square / 32.0f + 1.0e-2f", "square / 32.0f + 1.0e-3f", "embed_normed"),
        ("square / 32.0f", "square / 31.0f", "embed_normed"),
        // Of a factor no more than the epsilon is left.
        ("0.5f * looked[i]", "looked[i]", "embed_normed"),
        ("1.5f * table", "1.49999f * table", "embed"),
        ("next_token) * 32 + i];", "next_token) * 32 + (i ^ 1)];", "embed"),
        // Every row the first one's token.
        ("row_token(step[row]", "row_token(step[0]", "embed"),
        ("value * gamma[i]", "table[row_token(step[0], next_token) * 32 + i] * gamma[i]", "embed_scaled"),
        ("sums[1] = squares[1]", "sums[1] = 0.0f", "embed_scaled"),
        ("x[i] = value", "x[i] = value * gamma[i]", "embed_scaled"),
    ],
};
pub const EMBED_TABLE: Operation = Operation::Embed { table: MATRIX, scale: 1.5, norm_eps: None };

pub static LAYER_INPUTS: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/layer_inputs.metal"),
    slots: 1,
    specs: &[spec("layer_inputs")],
    checks: &[check(
        0,
        SOME_ROWS,
        BY_ROW,
        Operation::LayerInputs { table: MATRIX, layers: 2, eps: 1e-5, scale: 0.5, factor: 0.7 },
        &[
            TABLE,
            NEXT_TOKEN,
            Argument::read(Role::Projected, Data::Words(32)),
            GAMMA,
            Argument::write(Role::Y, Data::Words(32)),
            STEP,
        ],
    )],
    faults: &[
        // The norm of both layers together.
        ("sum / 16.0f", "sum / 32.0f", "layer_inputs"),
        // [rows, layers, width] instead of [layers, rows, width].
        ("layer * step->rows + row", "row * 2 + layer", "layer_inputs"),
        ("0.5f * looked_up", "looked_up", "layer_inputs"),
        ("* 32 + layer * 16 + i]", "* 32 + i]", "layer_inputs"),
        ("0.7f * (source[i] * scale * gamma[i] + 0.5f", "(0.7f * source[i] * scale * gamma[i] + 0.5f", "layer_inputs"),
    ],
};

pub const fn project(norm_eps: Option<f32>, half_operands: bool, epilogue: Epilogue) -> Operation<'static> {
    Operation::Project(Projection { matrices: &[MATRIX], norm_eps, half_operands, epilogue })
}

pub const RESIDUAL: Epilogue = Epilogue::Residual { factor: 0.5 };
pub const Y8: Argument = Argument::write(Role::Y, Data::Words(8));
pub const X8: Argument = Argument::update(Role::X, Data::Words(8));

pub static PROJECT: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/project.metal"),
    slots: 1,
    specs: &[
        spec("store"),
        spec("stacked"),
        spec("halves"),
        spec("residual"),
        spec("residual_rows"),
        spec("activated"),
        spec("gate_up"),
        spec("gated_by"),
        spec("xielu"),
        spec("clamped"),
        spec("row_scale"),
        spec("scaled_halves"),
    ],
    checks: &[
        check(
            0,
            SOME_ROWS,
            BY_ROW,
            project(None, false, Epilogue::Store { softcap: Some(3.0) }),
            &[WEIGHTS, INPUT, Argument::read(Role::Bias, Data::Tensor("gamma")), Y8],
        ),
        check(
            1,
            ONE_ROW,
            ONCE,
            Operation::Project(Projection {
                matrices: &[MATRIX, MATRIX],
                norm_eps: None,
                half_operands: false,
                epilogue: Epilogue::Store { softcap: None },
            }),
            &[
                WEIGHTS,
                Argument::read(Role::Weights1, Data::Tensor("other")),
                INPUT,
                Argument::write(Role::Y, Data::Words(16)),
                Argument::write(Role::ResultSums, Data::Words(2)),
            ],
        ),
        check(2, SOME_ROWS, BY_ROW, project(None, true, Epilogue::Store { softcap: None }), &[WEIGHTS, INPUT, Y8]),
        check(
            3,
            ONE_ROW,
            ONCE,
            project(Some(1e-5), false, RESIDUAL),
            &[
                WEIGHTS,
                INPUT,
                Argument::read(Role::InputSums, Data::Words(3)),
                X8,
                GAMMA,
                Argument::write(Role::Scaled, Data::Words(8)),
                Argument::write(Role::Sums, Data::Words(1)),
            ],
        ),
        check(4, SOME_ROWS, BY_ROW, project(None, false, RESIDUAL), &[WEIGHTS, INPUT, X8]),
        check(
            5,
            SOME_ROWS,
            BY_ROW,
            project(None, false, Epilogue::Activated(Activation::ReluSquared)),
            &[WEIGHTS, INPUT, Y8],
        ),
        check(
            6,
            SOME_ROWS,
            BY_ROW,
            project(None, false, Epilogue::Gated(Activation::Silu)),
            &[WEIGHTS, INPUT, Argument::write(Role::Y, Data::Words(4))],
        ),
        check(
            7,
            SOME_ROWS,
            BY_ROW,
            project(None, false, Epilogue::GatedBy(Activation::GeluTanh)),
            &[WEIGHTS, INPUT, Argument::read(Role::Multiplier, Data::Words(8)), Y8],
        ),
        check(
            8,
            SOME_ROWS,
            BY_ROW,
            project(None, false, Epilogue::Activated(Activation::Xielu)),
            &[WEIGHTS, INPUT, Argument::read(Role::Activation, Data::Tensor("numbers")), Y8],
        ),
        check(
            9,
            SOME_ROWS,
            BY_ROW,
            project(None, false, Epilogue::Gated(Activation::ClampedSwiglu { alpha: 1702, limit: 250 })),
            &[WEIGHTS, INPUT, Argument::write(Role::Y, Data::Words(4))],
        ),
        check(
            10,
            SOME_ROWS,
            BY_ROW,
            Operation::RowScale { width: 32, each: 1 },
            &[INPUT, Argument::write(Role::InputScales, Data::Words(1))],
        ),
        check(
            11,
            SOME_ROWS,
            BY_ROW,
            project(None, true, Epilogue::Store { softcap: None }),
            &[WEIGHTS, INPUT, Argument::read(Role::InputScales, Data::Words(1)), Y8],
        ),
    ],
    faults: &[
        ("+ bias[row]", "+ bias[row + 1]", "store"),
        ("tanh(sum / 3.0f)", "tanh(sum / 3.001f)", "store"),
        // The soft-cap before the bias.
        (
            "+ bias[row];\n        y[token * 8 + row] = 3.0f * precise::tanh(sum / 3.0f)",
            ";\n        y[token * 8 + row] = 3.0f * precise::tanh(sum / 3.0f) + bias[row]",
            "store",
        ),
        ("product(weights_1, input, row - 8)", "product(weights, input, row - 8)", "stacked"),
        ("squares[row % 2] +=", "squares[row % 2] =", "stacked"),
        ("weights_1, input, row - 8)", "weights_1, input, 15 - row)", "stacked"),
        // One product of 32 left out, in one row.
        ("float(half(input[token * 32 + i]))", "(row == 7 && i == 30 ? 0.0f : input[token * 32 + i])", "halves"),
        ("float(half(weights[row * 32 + i]))", "float(half(weights[row * 32 + i]) * 1.01h)", "halves"),
        // Another power of two, that of another row, and a row that is not multiplied, or not divided, by its own.
        ("14.0f -", "15.0f -", "row_scale"),
        ("abs(input[row * 32 + i])", "abs(input[i])", "row_scale"),
        ("half(scale * input", "half(input", "scaled_halves"),
        ("sum / scale", "sum / input_scales[0]", "scaled_halves"),
        ("rsqrt(mean + 1.0e-5f)", "rsqrt(mean + 1.0e-4f)", "residual"),
        ("input_sums[1] + input_sums[2]", "input_sums[1]", "residual"),
        ("x[row] += 0.5f", "x[row] = 0.5f", "residual"),
        ("scaled[row] = x[row] * gamma[row]", "scaled[row] = x[row]", "residual"),
        ("sums[0] = square;", "sums[0] = 0.99f * square;", "residual"),
        ("+ 0.5f * product", "+ product", "residual_rows"),
        ("x[token * 8 + row] + ", "x[row] + ", "residual_rows"),
        ("row), 0.0f)", "row), -1.0f)", "activated"),
        ("above * above", "above", "activated"),
        ("exp(-gate)", "exp(-1.001f * gate)", "gate_up"),
        // Rows of gate and up in turns.
        ("row + 4)", "row * 2 + 1)", "gate_up"),
        ("0.044715f", "0.0447f", "gated_by"),
        ("gelu * multiplier[token * 8 + row]", "gelu * multiplier[row]", "gated_by"),
        // An epsilon that counts for nothing, and one that does for what is subtracted.
        ("precise::exp(min(v, numbers[3])) - 1.0f - v", "precise::exp(v) - 1.0f - v", "xielu"),
        ("- 1.0f - v)", "- 1.0f - min(v, numbers[3]))", "xielu"),
        ("numbers[0] * v * v", "numbers[1] * v * v", "xielu"),
        ("+ numbers[2] * v", "+ 1.001f * numbers[2] * v", "xielu"),
        // A limit that the gate does not have from below, another slope, a bound of one side alone, without the one more.
        (
            "min(product(weights, input + token * 32, row), 0.25f)",
            "clamp(product(weights, input + token * 32, row), -0.25f, 0.25f)",
            "clamped",
        ),
        ("exp(-1.702f * g)", "exp(-1.7f * g)", "clamped"),
        (
            "clamp(product(weights, input + token * 32, 4 + row), -0.25f, 0.25f)",
            "min(product(weights, input + token * 32, 4 + row), 0.25f)",
            "clamped",
        ),
        ("* (linear + 1.0f)", "* linear", "clamped"),
    ],
};

const HEADS: HeadNorm = HeadNorm { eps: 1e-5, across_heads: false };

pub static ROPE_APPEND: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/rope_append.metal"),
    slots: 1,
    specs: &[spec("rope_append"), spec("rope_normed"), spec("rope_last")],
    checks: &[
        check(
            0,
            SOME_ROWS,
            BY_ROW,
            Operation::RopeAppend(RopeAppend {
                keys_as_values: false,
                gates: Gates::None,
                heads: 2,
                kv_heads: 1,
                head_dim: 8,
                norms: [None, None, None],
                norms_last: false,
                inv_freq: &[1.0, 0.1, 0.01],
                interleaved: false,
                magnitude: 1.0,
                query_scale: None,
                cache: CacheType::F32,
                wrap: None,
            }),
            &[
                Argument::read(Role::Qkv, Data::Words(32)),
                Argument::write(Role::Q, Data::Words(16)),
                Argument::write(Role::Keys, Data::Cache(8)),
                Argument::write(Role::Values, Data::Cache(8)),
                STEP,
            ],
        ),
        check(
            1,
            SOME_ROWS,
            BY_ROW,
            Operation::RopeAppend(RopeAppend {
                keys_as_values: true,
                gates: Gates::None,
                heads: 2,
                kv_heads: 1,
                head_dim: 8,
                norms: [
                    Some(HeadNorm { across_heads: true, ..HEADS }),
                    Some(HEADS),
                    Some(HeadNorm { eps: 5e-3, ..HEADS }),
                ],
                norms_last: false,
                inv_freq: &[1.0, 0.3, 0.09, 0.027],
                interleaved: true,
                magnitude: 1.25,
                query_scale: None,
                cache: CacheType::F16,
                wrap: Some(40),
            }),
            &[
                Argument::read(Role::Qkv, Data::Words(24)),
                Argument::read(Role::QGamma, Data::Tensor("gamma")),
                Argument::read(Role::KGamma, Data::Tensor("matrix")),
                Argument::write(Role::Q, Data::Words(16)),
                Argument::write(Role::Keys, Data::Cache(8)),
                Argument::write(Role::Values, Data::Cache(8)),
                STEP,
            ],
        ),
        check(
            2,
            SOME_ROWS,
            BY_ROW,
            Operation::RopeAppend(RopeAppend {
                keys_as_values: false,
                gates: Gates::None,
                heads: 2,
                kv_heads: 1,
                head_dim: 8,
                norms: [Some(HEADS), Some(HEADS), None],
                norms_last: true,
                inv_freq: &[1.0, 0.1, 0.01],
                interleaved: false,
                magnitude: 1.0,
                query_scale: Some(PositionScale { beta: 0.3, original_context: 52 }),
                cache: CacheType::F32,
                wrap: None,
            }),
            &[
                Argument::read(Role::Qkv, Data::Words(32)),
                Argument::read(Role::QGamma, Data::Tensor("gamma")),
                Argument::read(Role::KGamma, Data::Tensor("matrix")),
                Argument::write(Role::Q, Data::Words(16)),
                Argument::write(Role::Keys, Data::Cache(8)),
                Argument::write(Role::Values, Data::Cache(8)),
                STEP,
            ],
        ),
    ],
    faults: &[
        // An append to the wrong slot, and a pair that turns the other way.
        ("values[position * 8", "values[(position + 1) * 8", "rope_append"),
        ("x * s + y * c", "y * c - x * s", "rope_append"),
        ("i < 3; ++i) {\n        const float angle", "i < 2; ++i) {\n        const float angle", "rope_append"),
        ("norm_scale(source, 16, 1.0e-5f)", "norm_scale(source, 8, 1.0e-5f)", "rope_normed"),
        ("position % 40", "position % 39", "rope_normed"),
        ("1.25f * precise::sin", "precise::sin", "rope_normed"),
        // Values scaled as keys.
        ("source[16 + i] * v_scale", "source[16 + i] * k_scale", "rope_normed"),
        ("k_gamma[i - 16]", "q_gamma[i - 16]", "rope_normed"),
        // Halves as pairs.
        ("y = heads[2 * pair + 1]", "y = heads[pair / 4 * 8 + (2 * pair + 4) % 8]", "rope_normed"),
        // A factor that changes a position late, and one on keys.
        ("position / 52", "(position - 1) / 52", "rope_last"),
        ("heads[16 + i] = rotated", "heads[16 + i] = factor * rotated", "rope_last"),
        ("0.3f * precise::log", "0.3f * precise::log2", "rope_last"),
        // A gamma that turns with its element.
        ("head[i] = source[i];", "head[i] = source[i] * gamma[i];", "rope_last"),
    ],
};

pub const WINDOWED: Split = Split { above: 16, positions: 8, most: 4, window: Some(100) };

pub static ATTENTION: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/attention.metal"),
    slots: 1,
    specs: &[spec("attention"), spec("attention_part"), spec("attention_combine")],
    checks: &[
        check(
            0,
            SOME_ROWS,
            [Dim::Rows, Dim::Const(4)],
            Operation::Attention(Attention {
                heads: 4,
                kv_heads: 2,
                head_dim: 8,
                value_dim: 8,
                scale: 0.25,
                softcap: Some(20.0),
                window: Some(24),
                cache: CacheType::F16,
                wrap: Some(40),
                half_operands: false,
                split: None,
            }),
            &[
                Argument::read(Role::Q, Data::Words(32)),
                Argument::read(Role::Keys, Data::Cache(16)),
                Argument::read(Role::Values, Data::Cache(16)),
                Argument::write(Role::Y, Data::Words(32)),
                STEP,
            ],
        ),
        check(
            1,
            ONE_ROW,
            [Dim::Const(4), Dim::Parts],
            Operation::Attention(Attention {
                heads: 4,
                kv_heads: 2,
                head_dim: 8,
                value_dim: 8,
                scale: 0.25,
                softcap: None,
                window: Some(100),
                cache: CacheType::F32,
                wrap: None,
                half_operands: false,
                split: Some(WINDOWED),
            }),
            &[
                Argument::read(Role::Q, Data::Words(32)),
                Argument::read(Role::Keys, Data::Cache(16)),
                Argument::read(Role::Values, Data::Cache(16)),
                Argument::write(Role::Y, Data::Words(4 * 4 * 10)),
                STEP,
            ],
        ),
        check(
            2,
            ONE_ROW,
            [Dim::Const(4), Dim::Const(1)],
            Operation::AttentionCombine { heads: 4, head_dim: 8, split: Split { window: None, ..WINDOWED } },
            &[Argument::read(Role::Parts, Data::Words(4 * 4 * 10)), Argument::write(Role::Y, Data::Words(32)), STEP],
        ),
    ],
    faults: &[
        // A window that is one too long, and a cache that wraps one too early.
        ("+ 24 > position", "+ 25 > position", "attention"),
        ("% 40", "% 39", "attention"),
        ("tanh(score * 0.25f / 20.0f)", "tanh(score * 0.25f / 21.0f)", "attention"),
        // The token itself left out.
        ("key <= position", "key < position", "attention"),
        // The last position of a part left out, and a weight that is not of its score.
        (
            "(group.y + 1) * seen / groups.y",
            "(group.y + 1) * seen / groups.y - (group.y == 1 ? 1 : 0)",
            "attention_part",
        ),
        ("1, 100u)", "1, 101u)", "attention_part"),
        ("precise::exp2(scaled_score", "precise::exp(scaled_score", "attention_part"),
        ("groups.y * 32", "128", "attention_part"),
        ("* 2 + 1] * factor", "* 2 + 1]", "attention_combine"),
        ("precise::exp2(scales", "precise::exp(scales", "attention_combine"),
        ("4u)", "3u)", "attention_combine"),
    ],
};

pub static NORMS: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/norms.metal"),
    slots: 1,
    specs: &[spec("rms_norm"), spec("layer_norm"), spec("post_norm"), spec("post_norm_scaled")],
    checks: &[
        check(
            0,
            SOME_ROWS,
            BY_ROW,
            Operation::RmsNorm { width: 32, eps: 1e-5 },
            &[Argument::read(Role::X, Data::Words(32)), GAMMA, Argument::write(Role::Y, Data::Words(32))],
        ),
        check(
            1,
            SOME_ROWS,
            BY_ROW,
            Operation::LayerNorm { width: 32, eps: 1e-6 },
            &[
                Argument::read(Role::X, Data::Words(32)),
                GAMMA,
                Argument::read(Role::Beta, Data::Tensor("matrix")),
                Argument::write(Role::Y, Data::Words(32)),
            ],
        ),
        check(
            2,
            SOME_ROWS,
            BY_ROW,
            Operation::PostNorm { width: 32, eps: 1e-4, factor: 0.5 },
            &[
                Argument::read(Role::Y, Data::Words(32)),
                Argument::read(Role::PostGamma, Data::Tensor("gamma")),
                Argument::update(Role::X, Data::Words(32)),
                Argument::read(Role::Scale, Data::Tensor("matrix")),
            ],
        ),
        check(
            3,
            ONE_ROW,
            ONCE,
            Operation::PostNorm { width: 32, eps: 2e-5, factor: 0.25 },
            &[
                Argument::read(Role::Y, Data::Words(32)),
                Argument::read(Role::ResultSums, Data::Words(2)),
                Argument::read(Role::PostGamma, Data::Tensor("matrix")),
                Argument::update(Role::X, Data::Words(32)),
                GAMMA,
                Argument::write(Role::Scaled, Data::Words(32)),
                Argument::write(Role::Sums, Data::Words(1)),
            ],
        ),
    ],
    faults: &[
        ("1.0e-5f", "1.1e-3f", "rms_norm"),
        ("scale * gamma[i];", "scale * (1.0f + gamma[i]);", "rms_norm"),
        // The variance of a sample, the mean of squares, and no beta.
        ("squares / 32.0f", "squares / 31.0f", "layer_norm"),
        ("(values[i] - mean) * (values[i] - mean);", "values[i] * values[i];", "layer_norm"),
        ("+ beta[i]", "+ 0.0f * beta[i]", "layer_norm"),
        ("1.0e-4f", "1.0e-3f", "post_norm"),
        ("norm * post_gamma[i]) * scale[0]", "norm * post_gamma[i] * scale[0])", "post_norm"),
        ("0.5f * precise", "precise", "post_norm"),
        ("(result_sums[0] + result_sums[1])", "(result_sums[0])", "post_norm_scaled"),
        ("0.25f * y[i]", "y[i]", "post_norm_scaled"),
        ("value * gamma[i]", "value * post_gamma[i]", "post_norm_scaled"),
        ("square += value * value", "square += y[i] * y[i]", "post_norm_scaled"),
    ],
};

pub const VOCABULARY: Vocabulary = Vocabulary { tokens: 100, groups: 2 };
pub const LOGITS: Argument = Argument::read(Role::Logits, Data::Words(100));

pub static SAMPLE: Family = Family {
    metal: include_str!("../fixtures/plain_kernels/sample.metal"),
    slots: 1,
    specs: &[spec("sample_best"), spec("sample_collect"), spec("sample_draw")],
    checks: &[
        check(
            0,
            ONE_ROW,
            [Dim::Const(2), Dim::Const(1)],
            Operation::SampleBest(VOCABULARY),
            &[
                LOGITS,
                Argument::read(Role::Seen, Data::Words(4)),
                Argument::read(Role::LogitBias, Data::Words(100)),
                Argument::read(Role::Times, Data::Words(100)),
                Argument::read(Role::Allowed, Data::Words(4)),
                Argument::write(Role::Best, Data::Words(4)),
                Argument::write(Role::Count, Data::Words(1)),
                STEP,
            ],
        ),
        check(
            1,
            ONE_ROW,
            ONCE,
            Operation::SampleCollect(VOCABULARY),
            &[
                LOGITS,
                Argument::read(Role::Seen, Data::Words(4)),
                Argument::read(Role::LogitBias, Data::Words(100)),
                Argument::read(Role::Times, Data::Words(100)),
                Argument::read(Role::Allowed, Data::Words(4)),
                Argument::read(Role::Best, Data::Words(4)),
                Argument::update(Role::Count, Data::Words(1)),
                Argument::write(Role::Candidates, Data::Words(300)),
                STEP,
            ],
        ),
        check(
            2,
            ONE_ROW,
            ONCE,
            Operation::SampleDraw(VOCABULARY),
            &[
                Argument::read(Role::Best, Data::Words(4)),
                Argument::read(Role::Count, Data::Words(1)),
                Argument::read(Role::Candidates, Data::Words(300)),
                Argument::update(Role::Seen, Data::Words(4)),
                Argument::update(Role::Times, Data::Words(100)),
                Argument::write(Role::NextToken, Data::Words(1)),
                Argument::write(Role::Chosen, Data::Words(1)),
                STEP,
            ],
        ),
    ],
    faults: &[
        ("is_finite_logit(logits[id])", "id < 100", "sample_best"),
        ("? step.repeat_penalty : 1.0f", "? 1.0f : 1.0f", "sample_best"),
        ("step.biased == 1 ? logits[id] + bias[id] :", "false ? 0.0f :", "sample_best"),
        ("step.biased != 0 ? bias[id] : 0.0f", "bias[id]", "sample_collect"),
        ("step.frequency_penalty * float(times[id])", "step.frequency_penalty", "sample_best"),
        ("times[id] > 0 ? own - taken : own", "own - taken", "sample_best"),
        ("step.presence_penalty + float", "float", "sample_collect"),
        ("step.masked == 0 || has_bit(allowed, id)", "step.masked < 2", "sample_best"),
        ("step.masked == 0 || has_bit(allowed, id)", "has_bit(allowed, id)", "sample_best"),
        ("if (step.masked == 1 && !has_bit(allowed, id)) {", "if (step.masked == 2) {", "sample_collect"),
        ("key > highest", "(key > highest || id == group * 50 + 49)", "sample_best"),
        // The best of the one threadgroup is not asked for, or it is the other that resets the count.
        ("id < group * 50 + 50", "id < group * 50 + 50 * group", "sample_best"),
        ("count[0] = 0;", "count[0] = 1;", "sample_best"),
        ("(own - top) * step.inverse_temperature", "own - top", "sample_collect"),
        ("max(best[0], best[2])", "best[0]", "sample_collect"),
        ("&& weight > 0", "&& weight > 1000", "sample_collect"),
        ("if (step.inverse_temperature == 0.0f) {", "if (step.inverse_temperature < 0.0f) {", "sample_collect"),
        ("* 16777216.0f", "* 16777000.0f", "sample_collect"),
        ("best[0] >= best[2] ? best[1] : best[3]", "best[1]", "sample_draw"),
        (">= step.top_k", "> step.top_k", "sample_draw"),
        ("step.top_p < 16777216u", "step.top_p < 1u", "sample_draw"),
        ("&& weight >= step.min_p", "", "sample_draw"),
        ("step.draw_low, step.draw_high", "step.draw_high, step.draw_low", "sample_draw"),
        ("- precise::log(-precise::log(uniform))", "+ precise::log(-precise::log(uniform))", "sample_draw"),
        ("next_token[0] = token", "next_token[0] = token + 1", "sample_draw"),
        // A token to go on with where no logit is finite.
        ("if (token != NO_TOKEN) {", "next_token[0] = token; if (token != NO_TOKEN) {", "sample_draw"),
        ("seen[token / 32] |=", "seen[token / 32] =", "sample_draw"),
        ("times[token] += 1;", "times[token] = 1;", "sample_draw"),
        ("step.presence_penalty != 0.0f || step.frequency_penalty != 0.0f", "step.draw_low < 99", "sample_draw"),
    ],
};

pub static FAMILIES: [&Family; 15] = [
    &EMBED,
    &LAYER_INPUTS,
    &PROJECT,
    &ROPE_APPEND,
    &RECURRENT,
    &GATED_DELTA,
    &LATENT_ATTENTION,
    &RECURRENT_SLOTS,
    &ATTENTION,
    &SINKS,
    &CACHE_Q8_0,
    &CACHE_Q4_0,
    &NORMS,
    &MIXTURES,
    &SAMPLE,
];
