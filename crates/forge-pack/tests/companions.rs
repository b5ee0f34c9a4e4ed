//! What stands beside a matrix's codes: scales, biases, zero points, factors, shapes, orders of columns. Each, damaged in every way that
//! there is, ends in one line that names it or, where it is its numbers that are wrong, the matrix; none goes into a weights file.

#[path = "../../forge-frontend/tests/refusals/folder.rs"]
#[expect(dead_code, reason = "shared with the tests of refusals")]
mod folder;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use folder::{Folder, Weights};
use forge_frontend::checkpoint::GgufFile;
use forge_frontend::load;
use forge_pack::Packing;
use forge_plan::{PlanOptions, plan};
use serde_json::{Value, json};

/// A tensor beside codes.
struct Companion {
    case: &'static str,
    form: &'static str,
    /// The module.
    module: &'static str,
    /// Its name within the module.
    name: &'static str,
    /// Whether checkpoints do without it.
    optional: bool,
    /// Bytes of one that is no number, infinite ones among them; none where all bytes are numbers.
    not_finite: &'static [&'static [u8]],
}

const ATTENTION: &str = "model.layers.0.self_attn.q_proj";
const HALVES: &[&[u8]] = &[&[0x00, 0x7E], &[0x00, 0x7C], &[0x00, 0xFC]];
const BFLOATS: &[&[u8]] = &[&[0xC0, 0x7F], &[0x80, 0x7F], &[0x80, 0xFF]];
const SINGLES: &[&[u8]] = &[&[0, 0, 0xC0, 0x7F], &[0, 0, 0x80, 0x7F], &[0, 0, 0x80, 0xFF]];
/// A factor is divided by: by zero too it is infinite.
const DIVISORS: &[&[u8]] = &[&[0, 0, 0xC0, 0x7F], &[0, 0, 0, 0]];
const E4M3: &[&[u8]] = &[&[0x7F], &[0xFF]];
const E8M0: &[&[u8]] = &[&[0xFF]];

#[rustfmt::skip]
const COMPANIONS: &[Companion] = &[
    // FP8: scales of blocks, of the tensor, of channels.
    Companion::of("toolchain-fp8", "hf", ATTENTION, ".weight_scale_inv", SINGLES),
    Companion::of("toolchain-fp8", "hf", "model.layers.0.self_attn.v_proj", ".weight_scale", SINGLES),
    Companion::of("toolchain-fp8", "hf", "model.layers.0.self_attn.o_proj", ".weight_scale", BFLOATS),
    // compressed-tensors: integers, E2M1 codes of both kinds, channels of E4M3.
    Companion::of("toolchain-compressed", "hf", ATTENTION, ".weight_scale", BFLOATS),
    Companion::of("toolchain-compressed", "hf", ATTENTION, ".weight_shape", &[]),
    Companion::of("toolchain-compressed", "hf", "model.layers.0.self_attn.k_proj", ".weight_zero_point", &[]).optional(),
    Companion::of("fp4-groups", "hf", "model.layers.0.mlp.down_proj", ".weight_scale", E4M3),
    Companion::of("fp4-groups", "hf", "model.layers.0.mlp.down_proj", ".weight_global_scale", DIVISORS),
    Companion::of("fp4-groups", "hf", "model.layers.0.mlp.gate_proj", ".weight_scale", E8M0),
    Companion::of("fp4-groups", "hf", "model.layers.0.mlp.up_proj", ".weight_scale", BFLOATS),
    Companion::of("nvfp4", "hf-compressed", ATTENTION, ".weight_scale", E4M3),
    // ModelOpt, single matrices and experts.
    Companion::of("nvfp4", "hf", ATTENTION, ".weight_scale", E4M3),
    Companion::of("nvfp4", "hf", ATTENTION, ".weight_scale_2", SINGLES),
    Companion::of("nvfp4-moe", "hf", "model.layers.0.mlp.experts.1.down_proj", ".weight_scale", E4M3),
    Companion::of("nvfp4-moe", "hf", "model.layers.0.mlp.experts.1.down_proj", ".weight_scale_2", SINGLES),
    // gpt-oss: blocks.
    Companion::of("gpt-oss", "hf", "model.layers.0.mlp.experts.down_proj", "_scales", E8M0),
    Companion::of("gpt-oss", "hf", "model.layers.0.mlp.experts.gate_up_proj", "_scales", E8M0),
    // GPTQ in its versions, and AWQ.
    Companion::of("toolchain-gptq", "hf", ATTENTION, ".scales", HALVES),
    Companion::of("toolchain-gptq", "hf", ATTENTION, ".qzeros", &[]),
    Companion::of("toolchain-gptq", "hf", ATTENTION, ".g_idx", &[]).optional(),
    Companion::of("toolchain-gptq-v2", "hf", ATTENTION, ".scales", BFLOATS),
    Companion::of("toolchain-gptq-3", "hf", ATTENTION, ".qzeros", &[]),
    Companion::of("toolchain-awq", "hf", ATTENTION, ".scales", HALVES),
    Companion::of("toolchain-awq", "hf", ATTENTION, ".qzeros", &[]),
    // MLX: affine, and the floating modes with and without a second scale.
    Companion::of("fp4-mixed", "hf", "model.layers.0.mlp.gate_proj", ".scales", BFLOATS),
    Companion::of("fp4-mixed", "hf", "model.layers.0.mlp.gate_proj", ".biases", BFLOATS),
    Companion::of("gpt-oss", "mlx", "model.layers.0.mlp.experts.down_proj", ".scales", E8M0),
    Companion::of("nvfp4", "mlx", ATTENTION, ".scales", E4M3),
    Companion::of("nvfp4", "mlx", "model.layers.0.mlp.down_proj", ".global_scale", SINGLES).optional(),
    Companion::of("nvfp4-moe", "mlx", "model.layers.0.mlp.switch_mlp.down_proj", ".global_scale", SINGLES).optional(),
];

impl Companion {
    const fn of(
        case: &'static str,
        form: &'static str,
        module: &'static str,
        name: &'static str,
        not_finite: &'static [&'static [u8]],
    ) -> Self {
        Self { case, form, module, name, optional: false, not_finite }
    }

    /// Of which a checkpoint may have none.
    const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    fn tensor(&self) -> String {
        format!("{}{}", self.module, self.name)
    }

    /// What becomes of the checkpoint with other weights.
    fn with(&self, edit: impl FnOnce(&mut Weights)) -> Result<(), String> {
        let folder = Folder::of_form(self.case, self.form);
        folder.edit_weights(edit);
        pack(folder.root.path())
    }

    /// What is wrong with a result that should be one line with one of these names.
    fn fault(&self, damage: &str, result: Result<(), String>, names: &[&str]) -> Option<String> {
        let found = match result {
            Ok(()) => "was packed".to_owned(),
            Err(line) if names.iter().any(|name| line.contains(name)) && !line.contains('\n') => return None,
            Err(line) => line,
        };
        Some(format!("{}/{} {}, {damage}: {found}", self.case, self.form, self.tensor()))
    }
}

/// Reads a checkpoint, plans it and packs its weights.
fn pack(path: &Path) -> Result<(), String> {
    let checkpoint = load(path).map_err(|error| error.to_string())?;
    let plan = plan(&checkpoint.graph, &PlanOptions::default()).map_err(|error| error.to_string())?;
    let (cancel, target) = (AtomicBool::new(false), tempfile::tempdir().expect("a folder"));
    let packing = Packing { plan: &plan.weights, graph: &checkpoint.graph, source: &checkpoint, cancel: &cancel };
    packing.pack(&target.path().join("weights"), |_| {}).map(|_| ()).map_err(|error| error.to_string())
}

/// The bytes of a tensor.
fn range(entry: &Value) -> Range<usize> {
    let offset = |at: usize| entry["data_offsets"][at].as_u64().expect("an offset") as usize;
    offset(0)..offset(1)
}

#[test]
fn damaged_companions_are_named() {
    let mut faults = Vec::new();
    for companion in COMPANIONS {
        let name = companion.tensor();
        let of = |weights: &Weights| weights.header.get(&name).unwrap_or_else(|| panic!("{name} is there")).clone();
        companion.with(|weights| drop(of(weights))).unwrap_or_else(|error| panic!("{}: {error}", companion.case));

        let missing = companion.with(|weights| drop(weights.header.remove(&name)));
        if companion.optional {
            faults.extend(missing.err().map(|line| format!("{name} may be missing: {line}")));
        } else {
            // MLX tells by its scales that a module is quantised.
            faults.extend(companion.fault("missing", missing, &[&name, &format!("{}.weight:", companion.module)]));
        }

        // One row more, and all of it in one row more.
        for more in [false, true] {
            let result = companion.with(|weights| {
                let entry = of(weights);
                let mut shape = entry["shape"].as_array().expect("a shape").clone();
                match shape.first_mut() {
                    Some(first) if !more => *first = json!(first.as_u64().expect("a size") + 1),
                    _ => shape.splice(..0, [json!(5), json!(1)]).for_each(drop),
                }
                weights.add(&name, entry["dtype"].as_str().expect("a type"), &Value::Array(shape));
            });
            faults.extend(companion.fault("of another shape", result, &[&name]));
        }

        let result = companion.with(|weights| {
            let entry = of(weights);
            let other = if entry["dtype"] == "I32" || entry["dtype"] == "I64" { "F32" } else { "I16" };
            weights.add(&name, other, &entry["shape"]);
        });
        faults.extend(companion.fault("of another type", result, &[&name]));

        // The header's range is an element short; then the file's data is, of which it is the last.
        let result = companion.with(|weights| {
            let entry = weights.header.get_mut(&name).expect("the tensor");
            entry["data_offsets"][1] = json!(range(entry).end - 1);
        });
        faults.extend(companion.fault("truncated", result, &[&name]));
        let result = companion.with(|weights| {
            let entry = of(weights);
            let (start, bytes) = (weights.data.len(), weights.data[range(&entry)].to_vec());
            weights.header.get_mut(&name).expect("the tensor")["data_offsets"] = json!([start, start + bytes.len()]);
            weights.data.extend(&bytes[1..]);
        });
        faults.extend(companion.fault("cut off", result, &[&name]));

        // That of the next module of another shape or type. What differs in neither, nobody can tell.
        let mut other = None;
        let result = companion.with(|weights| {
            let entry = of(weights);
            let differs = |of: &Value| of["shape"] != entry["shape"] || of["dtype"] != entry["dtype"];
            let theirs = weights.header.iter().find(|(key, of)| key.ends_with(companion.name) && differs(of));
            let Some((key, theirs)) = theirs.map(|(key, theirs)| (key.clone(), theirs.clone())) else { return };
            weights.header.insert(name.clone(), theirs);
            weights.header.insert(key.clone(), entry);
            other = Some(key);
        });
        if let Some(other) = other {
            // Either module may be the one whose tensors do not fit.
            let theirs = other.strip_suffix(companion.name).expect("found by it");
            faults.extend(companion.fault("mixed up", result, &[companion.module, theirs]));
        }

        for number in companion.not_finite {
            let result = companion.with(|weights| {
                let range = range(&of(weights));
                // The last number, in the last rows.
                weights.data[range.end - number.len()..range.end].copy_from_slice(number);
            });
            let matrix = [companion.module, ".weight"].concat();
            let module = if companion.name == "_scales" { companion.module } else { &matrix };
            let [scale, bias] = ["scale", "bias"].map(|what| format!("tensor {module}: {what}"));
            // Of an expert with tensors of its own the stack is named, by its first.
            let names = [&*name, &scale, &bias, ", matrix 1 of its stack: scale"];
            faults.extend(companion.fault("not finite", result, &names));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A GGUF's description of a tensor: where its dimensions begin, and how many there are.
fn description(bytes: &[u8], name: &str) -> (usize, usize) {
    let text = [&(name.len() as u64).to_le_bytes()[..], name.as_bytes()].concat();
    let at = bytes.windows(text.len()).position(|window| window == text).expect("the tensor") + text.len();
    let count = u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    (at + 4, count as usize)
}

#[test]
fn damaged_factors_of_a_gguf_are_named() {
    const NAME: &str = "blk.0.attn_q.scale";
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../forge-frontend/tests/fixtures/tiny/nvfp4/model.NVFP4.gguf");
    let whole = fs::read(&fixture).expect("the fixture");
    let gguf = GgufFile::open(&fixture).expect("a GGUF");
    let data = gguf.tensor(NAME).expect("the tensor").range.start as usize;
    let (dims, count) = description(&whole, NAME);
    assert_eq!(count, 1);
    let with = |edit: &dyn Fn(&mut Vec<u8>)| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        let mut bytes = whole.clone();
        edit(&mut bytes);
        fs::write(&path, bytes).expect("written");
        pack(&path)
    };
    with(&|_| {}).expect("the fixture is read");
    let put =
        |at: usize, number: &'static [u8]| with(&move |bytes| bytes[at..at + number.len()].copy_from_slice(number));
    let kind = dims + 8;
    let damages = [
        ("of another shape", put(dims, &[2, 0, 0, 0])),
        ("of another type", put(kind, &[26])),
        ("halves", put(kind, &[1])),
        ("NaN", put(data, &[0, 0, 0xC0, 0x7F])),
        ("infinite", put(data, &[0, 0, 0x80, 0xFF])),
        ("behind the end", put(kind + 4, &[0, 0, 0, 0x40])),
    ];
    for (damage, result) in damages {
        let message = result.expect_err(damage);
        assert!(message.contains(NAME) && !message.contains('\n'), "{damage}: {message}");
    }
}
