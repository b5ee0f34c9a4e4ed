//! Folders of other toolchains whose tensors do not fit together: each is refused in one line that names the tensor or the key.

use forge_frontend::graph::Source;
use forge_frontend::{Refusal, load};
use serde_json::{Value, json};

use super::walk::Row;
use super::{Folder, Weights};

const MODULE: &str = "model.layers.0.self_attn.q_proj";
const GPTQ: &str = "toolchain-gptq";
const AWQ: &str = "toolchain-awq";
const COMPRESSED: &str = "toolchain-compressed";
const FP8: &str = "toolchain-fp8";
const FP4: &str = "fp4-groups";

/// A fixture with other weights.
fn weights(case: &str, refusal: Refusal, words: &'static str, edit: impl FnOnce(&mut Weights)) -> Row {
    let folder = Folder::of(case);
    folder.edit_weights(edit);
    (refusal, vec!["model.safetensors: tensor ", words], folder.error())
}

/// A fixture without a tensor of a module.
fn missing(case: &str, suffix: &str, words: &'static str) -> Row {
    weights(case, Refusal::RepackPart, words, |weights| {
        weights.header.remove(&format!("{MODULE}.{suffix}")).expect("the tensor");
    })
}

/// A fixture with zeros of another type or shape in a tensor's place.
fn other(case: &str, refusal: Refusal, tensor: &str, dtype: &str, shape: Value, words: &'static str) -> Row {
    weights(case, refusal, words, |weights| weights.add(&format!("model.layers.0.self_attn.{tensor}"), dtype, &shape))
}

/// A fixture with other bytes in a tensor of a module, from `at` on.
fn bytes(case: &str, refusal: Refusal, suffix: &str, at: usize, bytes: &[u8], words: &'static str) -> Row {
    weights(case, refusal, words, |weights| {
        let start = weights.header[&format!("{MODULE}.{suffix}")]["data_offsets"][0].as_u64().expect("an offset");
        weights.data[start as usize + at..][..bytes.len()].copy_from_slice(bytes);
    })
}

/// A fixture with another value in `quantization_config`.
fn setting(case: &str, refusal: Refusal, key: &str, value: Value, words: &'static str) -> Row {
    let folder = Folder::of(case);
    folder.edit_json("config.json", |config| config["quantization_config"][key] = value);
    (refusal, vec![words], folder.error())
}

pub fn rows() -> Vec<Row> {
    let shape = |case, tensor, dtype, size, words| other(case, Refusal::RepackShape, tensor, dtype, size, words);
    let kind = |case, tensor, dtype, size, words| other(case, Refusal::RepackType, tensor, dtype, size, words);
    let scale = |case, suffix, nan: &[u8], words| bytes(case, Refusal::RepackScale, suffix, 0, nan, words);
    let columns =
        |columns: u64, words| bytes(COMPRESSED, Refusal::PackedSizes, "weight_shape", 8, &columns.to_le_bytes(), words);
    let blocks = |value, words| setting(FP8, Refusal::Fp8Blocks, "weight_block_size", value, words);
    vec![
        missing(GPTQ, "scales", "q_proj.scales is missing"),
        missing(GPTQ, "qzeros", "q_proj.qzeros is missing"),
        missing(AWQ, "qzeros", "q_proj.qzeros is missing"),
        missing(COMPRESSED, "weight_scale", "q_proj.weight_scale is missing"),
        missing(COMPRESSED, "weight_shape", "q_proj.weight_shape is missing"),
        missing(FP8, "weight_scale_inv", "q_proj.weight_scale_inv is missing"),
        shape(GPTQ, "q_proj.scales", "F16", json!([3, 64]), "q_proj.scales: expected shape [2, 64], found [3, 64]"),
        shape(GPTQ, "q_proj.qzeros", "I32", json!([2, 4]), "q_proj.qzeros: expected shape [2, 8], found [2, 4]"),
        shape(GPTQ, "q_proj.g_idx", "I32", json!([63]), "q_proj.g_idx: expected shape [64], found [63]"),
        shape(GPTQ, "q_proj.qweight", "I32", json!([8, 32]), "q_proj.scales: expected shape [2, 32], found [2, 64]"),
        shape(AWQ, "q_proj.scales", "F16", json!([64, 2]), "q_proj.scales: expected shape [2, 64], found [64, 2]"),
        shape(
            FP8,
            "q_proj.weight_scale_inv",
            "F32",
            json!([2, 3]),
            "q_proj.weight_scale_inv: expected shape [3, 1], found [2, 3]",
        ),
        shape(
            COMPRESSED,
            "k_proj.weight_zero_point",
            "I32",
            json!([2, 4]),
            "k_proj.weight_zero_point: expected shape [4, 2], found [2, 4]",
        ),
        kind(GPTQ, "q_proj.scales", "I32", json!([2, 64]), "q_proj.scales: expected F16 or BF16, found I32"),
        kind(GPTQ, "q_proj.qzeros", "F32", json!([2, 8]), "q_proj.qzeros: expected I32, found F32"),
        kind(AWQ, "q_proj.qweight", "F32", json!([64, 8]), "q_proj.qweight: expected I32, found F32"),
        kind(FP8, "q_proj.weight_scale_inv", "I32", json!([3, 1]), "expected F32, F16 or BF16, found I32"),
        kind(COMPRESSED, "q_proj.weight_shape", "F32", json!([2]), "expected I32 or I64, found F32"),
        other(GPTQ, Refusal::RepackMatrix, "q_proj.qweight", "I32", json!([512]), "q_proj.qweight: expected a matrix"),
        scale(GPTQ, "scales", &[0, 0x7E], "q_proj.scales: expected finite scales, found NaN at 0"),
        scale(AWQ, "scales", &[0, 0x7C], "q_proj.scales: expected finite scales, found inf at 0"),
        scale(COMPRESSED, "weight_scale", &[0xC0, 0x7F], "q_proj.weight_scale: expected finite scales, found NaN at 0"),
        scale(FP8, "weight_scale_inv", &[0, 0, 0xC0, 0xFF], "q_proj.weight_scale_inv: expected finite scales"),
        bytes(
            GPTQ,
            Refusal::ActOrder,
            "g_idx",
            4 * 63,
            &[0],
            "q_proj.g_idx: expected columns in the order of their groups, found columns in the order of activations",
        ),
        setting(GPTQ, Refusal::RepackSize, "bits", json!("four"), "quantization_config.bits: expected a size"),
        setting(GPTQ, Refusal::RepackSize, "group_size", json!(0), "quantization_config.group_size: expected a size"),
        setting(GPTQ, Refusal::RepackWords, "bits", json!(5), "expected words that hold whole codes, found "),
        setting(GPTQ, Refusal::RepackFormat, "group_size", json!(16), ".qweight: affine quantisation of 4 bits"),
        setting(GPTQ, Refusal::RepackShape, "bits", json!(8), "down_proj.scales: expected shape"),
        setting(
            GPTQ,
            Refusal::GptqPacking,
            "checkpoint_format",
            json!("marlin"),
            "checkpoint_format = \"marlin\" is not",
        ),
        setting(AWQ, Refusal::AwqPacking, "version", json!("gemv"), "version = \"gemv\" is not supported"),
        setting(AWQ, Refusal::AwqBits, "bits", json!(8), "bits = 8 is not supported"),
        blocks(json!([128]), "weight_block_size = [128] is not supported"),
        blocks(json!([128, 0]), "weight_block_size = [128,0] is not supported"),
        other(
            FP8,
            Refusal::RepackFormat,
            "q_proj.weight_scale_inv",
            "F32",
            json!([64, 4]),
            "q_proj.weight: a scale for 16 columns is not supported",
        ),
        columns(96, "weight_shape: expected the sizes of a matrix of 4-bit or 8-bit codes, found [64, 96]"),
        columns(1 << 40, "weight_shape: expected the sizes"),
        columns(u64::MAX, "weight_shape: expected the sizes of a matrix of 4-bit or 8-bit codes, found [64, -1]"),
        missing(FP4, "weight_scale", "q_proj.weight_scale is missing"),
        missing(FP4, "weight_global_scale", "q_proj.weight_global_scale is missing"),
        kind(
            FP4,
            "q_proj.weight_scale",
            "F16",
            json!([128, 4]),
            "q_proj.weight_scale: expected F8_E4M3 or U8, found F16",
        ),
        other(
            FP4,
            Refusal::ApartShape,
            "q_proj.weight_scale",
            "F8_E4M3",
            json!([128, 2]),
            "q_proj.weight_scale: expected shape [128, 4], found [128, 2]",
        ),
        // Scales of the other kind of group.
        other(
            FP4,
            Refusal::ApartShape,
            "q_proj.weight_scale",
            "U8",
            json!([128, 4]),
            "q_proj.weight_scale: expected shape [128, 2], found [128, 4]",
        ),
        other(FP4, Refusal::FactorType, "q_proj.weight_global_scale", "F16", json!([1]), "expected F32, found F16"),
        other(
            FP4,
            Refusal::FactorShape,
            "q_proj.weight_global_scale",
            "F32",
            json!([128]),
            "q_proj.weight_global_scale: expected shape [1], found [128]",
        ),
        // A divisor of zeros.
        other(
            FP4,
            Refusal::FactorValue,
            "q_proj.weight_global_scale",
            "F32",
            json!([1]),
            "q_proj.weight_global_scale: expected finite factors, found inf at 0",
        ),
        other(
            FP4,
            Refusal::Fp4Width,
            "q_proj.weight_packed",
            "U8",
            json!([0, 1_u64 << 63]),
            "q_proj.weight_packed: expected codes of fewer columns",
        ),
    ]
}

#[test]
fn scales_without_codes_are_not_passed_over() {
    let folder = Folder::of(GPTQ);
    folder.edit_weights(|weights| {
        weights.header.remove(&format!("{MODULE}.qweight")).expect("the tensor");
    });
    assert!(folder.refusal().contains("q_proj.weight is missing"));
}

#[test]
fn columns_in_order_are_read_whatever_the_configuration_says() {
    let folder = Folder::of(GPTQ);
    folder.edit_json("config.json", |config| config["quantization_config"]["desc_act"] = json!(true));
    load(folder.root.path()).expect("a checkpoint");
}

#[test]
fn numbers_of_activations_are_passed_over() {
    let folder = Folder::of(FP8);
    folder.edit_weights(|weights| {
        for name in ["self_attn.k_proj.k_scale", "self_attn.q_proj.input_scale"] {
            weights.add(&format!("model.layers.0.{name}"), "F32", &json!([]));
        }
    });
    let checkpoint = load(folder.root.path()).expect("a checkpoint");
    let kinds = checkpoint.graph.weights.iter().filter_map(|weight| match &weight.source {
        Source::Repack { repack, .. } => Some(repack.to_string()),
        _ => None,
    });
    let kinds: Vec<String> = kinds.collect();
    for expected in ["FP8 E4M3 24x64", "FP8 E4M3 per tensor", "FP8 E4M3 per channel"] {
        assert!(kinds.iter().any(|kind| kind == expected), "{expected}: {kinds:?}");
    }
}
