//! `forge inspect --plan --json`: its figures add up, its formulas say what it says itself at other lengths, and it is the same each time.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use forge::cli::InspectArgs;
use forge_plan::CacheType;
use serde_json::Value;

use common::{Scratch, forge, gguf, hf};

/// Every tiny checkpoint as a Hugging Face folder, and one of llama's files.
fn checkpoints() -> Vec<PathBuf> {
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../forge-frontend/tests/fixtures/tiny");
    let tiny = fs::read_dir(tiny).unwrap().map(|entry| entry.unwrap().path().join("hf"));
    tiny.filter(|folder| folder.exists()).chain([gguf(), hf()]).collect()
}

fn inspect(checkpoint: &Path, context: Option<usize>) -> String {
    let inspection = forge::inspect::run(&InspectArgs {
        checkpoint: checkpoint.to_owned(),
        offline: true,
        context,
        kv: CacheType::F16,
        slots: 2,
        plan: true,
        json: true,
        html: None,
        prompt: None,
        bandwidth: None,
    });
    let inspection = inspection.unwrap();
    assert!(inspection.problem.is_none(), "{}: {:?}", checkpoint.display(), inspection.problem);
    inspection.text
}

fn document(checkpoint: &Path, context: Option<usize>) -> Value {
    serde_json::from_str(&inspect(checkpoint, context)).unwrap()
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn sum(items: &Value, field: &str) -> u64 {
    list(items).iter().map(|item| count(&item[field])).sum()
}

#[test]
fn sums_are_those_of_the_dispatches() {
    for checkpoint in checkpoints() {
        let plan = document(&checkpoint, None);
        for pass in [&plan["decode"], &plan["tile"]] {
            let (totals, dispatches) = (&pass["totals"], &pass["dispatches"]);
            for field in ["read", "written", "loaded", "flops"] {
                let expected = count(&totals[field]);
                assert_eq!(sum(dispatches, field), expected, "{} {field}", checkpoint.display());
                assert_eq!(sum(&pass["kernels"], field), expected, "{} {field}", checkpoint.display());
            }
            assert_eq!(count(&totals["bytes"]), count(&totals["read"]) + count(&totals["written"]));
            assert_eq!(list(dispatches).len() as u64, count(&totals["dispatches"]));
            assert_eq!(sum(&pass["kernels"], "dispatches"), count(&totals["dispatches"]));
            let barriers = list(dispatches).iter().filter(|dispatch| dispatch["barrier"] == true).count();
            assert_eq!(barriers as u64, count(&totals["barriers"]));
            for dispatch in list(dispatches) {
                let kernel = kernel(&plan, dispatch);
                assert_eq!(sum(&dispatch["reads"], "bytes") + count(&kernel["grid_bytes"]), count(&dispatch["read"]));
                assert_eq!(sum(&dispatch["writes"], "bytes"), count(&dispatch["written"]));
                buffers_exist(&plan, dispatch);
            }
        }
        // One tile is the prompt where there is no other.
        if plan["prompt"]["tiles"] == 1 {
            assert_eq!(
                (&plan["prompt"]["totals"], &plan["prompt"]["kernels"]),
                (&plan["tile"]["totals"], &plan["tile"]["kernels"])
            );
        }
        let packed = sum(&plan["weights"]["tensors"], "bytes");
        assert!(packed <= count(&plan["weights"]["file_bytes"]) && packed > 0);
        assert_eq!(sum(&plan["weights"]["stored"], "parameters"), count(&plan["model"]["parameters"]));
        assert_eq!(sum(&plan["model"]["blocks"], "layers"), list(&plan["model"]["layers"]).len() as u64);
    }
}

/// What a dispatch reads and writes is a tensor of the file, a state, or neither.
fn buffers_exist(plan: &Value, dispatch: &Value) {
    let tensors = list(&plan["weights"]["tensors"]);
    for used in list(&dispatch["reads"]).iter().chain(list(&dispatch["writes"])) {
        let buffer = used["buffer"].as_str().unwrap();
        if let Some(state) = buffer.strip_prefix("states.") {
            let (id, _) = state.split_once('.').unwrap();
            let state = &list(&plan["states"])[id.parse::<usize>().unwrap()];
            assert!(list(&state["layers"]).contains(&dispatch["layer"]), "{dispatch}");
        } else if buffer.starts_with("layers.") || used["role"] == "weights" || used["role"] == "table" {
            assert!(tensors.iter().any(|tensor| tensor["name"] == buffer), "{buffer}");
        }
    }
}

fn kernel<'a>(plan: &'a Value, dispatch: &Value) -> &'a Value {
    list(&plan["kernels"]).iter().find(|kernel| kernel["name"] == dispatch["kernel"]).unwrap()
}

/// What a document says that a dispatch of its decode step would read, write and compute after `position` tokens, and whether it
/// would be there: anew, from the description of the fields.
fn at(plan: &Value, dispatch: &Value, position: u64) -> ([u64; 3], bool) {
    let kernel = kernel(plan, dispatch);
    let seen = |window: &Value| (position + 1).min(window.as_u64().unwrap_or(u64::MAX));
    let split = &kernel["split"];
    let parts = if split.is_null() || seen(&split["window"]) <= count(&split["above"]) {
        1
    } else {
        seen(&split["window"]).div_ceil(count(&split["positions"])).min(count(&split["most"]))
    };
    let tiles = u64::from(list(&kernel["grid"]).iter().any(|axis| axis.get("row_tiles").is_some()));
    let term = |terms: &Value, name: &str| terms.get(name).map_or(0, count);
    let value = |terms: &Value| {
        term(terms, "fixed")
            + term(terms, "row")
            + term(terms, "tile") * tiles
            + term(terms, "position") * seen(&kernel["window"])
            + term(terms, "part") * parts
    };
    let bindings = list(&kernel["bindings"]);
    let first_of_state = |binding: &&Value| !(position == 0 && binding.get("state").is_some());
    let read: u64 = bindings.iter().filter(first_of_state).map(|binding| value(&binding["read"])).sum();
    let written = bindings.iter().map(|binding| value(&binding["written"])).sum();
    let is_split = seen(&kernel["window"]) > count(&plan["split_above"]);
    let runs = match dispatch["when"].as_str().unwrap() {
        "one_part" => !is_split,
        "split" => is_split,
        _ => true,
    };
    ([read + count(&kernel["grid_bytes"]), written, value(&kernel["flops"])], runs)
}

#[test]
fn formulas_say_what_the_document_of_another_context_does() {
    let mut split = 0;
    for checkpoint in checkpoints() {
        let plan = document(&checkpoint, None);
        let longest = count(&plan["options"]["longest_context"]);
        let mut steps: Vec<&Value> =
            list(&plan["decode"]["dispatches"]).iter().chain(list(&plan["decode"]["otherwise"])).collect();
        steps.sort_by_key(|step| count(&step["order"]));
        assert!(steps.iter().enumerate().all(|(order, step)| step["order"] == order));
        for context in [1, 100, longest].into_iter().filter(|context| *context <= longest) {
            let other = document(&checkpoint, Some(context as usize));
            let expected: Vec<(&Value, [u64; 3])> = list(&other["decode"]["dispatches"])
                .iter()
                .map(|dispatch| (&dispatch["order"], ["read", "written", "flops"].map(|field| count(&dispatch[field]))))
                .collect();
            let ours = steps.iter().filter_map(|step| {
                let (figures, runs) = at(&plan, step, context - 1);
                runs.then_some((&step["order"], figures))
            });
            assert_eq!(ours.collect::<Vec<_>>(), expected, "{} at {context}", checkpoint.display());
            split += list(&other["decode"]["dispatches"]).iter().filter(|dispatch| dispatch["when"] == "split").count();
        }
    }
    assert!(split > 0, "no context is split");
}

#[test]
fn memory_is_the_sum_of_the_states() {
    for checkpoint in checkpoints() {
        let plan = document(&checkpoint, None);
        let memory = &plan["memory"];
        for at in list(&memory["contexts"]).iter().chain([&memory["asked"]]) {
            let context = count(&at["context"]);
            let of = |state: &Value| {
                let kept = context.min(state["capacity"].as_u64().unwrap_or(u64::MAX));
                2 * (count(&state["fixed_bytes"]) + count(&state["position_bytes"]) * kept)
            };
            let mut bytes: BTreeMap<bool, u64> = BTreeMap::new();
            for state in list(&plan["states"]) {
                *bytes.entry(state["kind"] == "recurrent").or_default() += of(state);
            }
            let [kv, recurrent] = [false, true].map(|kind| bytes.get(&kind).copied().unwrap_or(0));
            assert_eq!((kv, recurrent), (count(&at["kv"]), count(&memory["recurrent"])), "{}", checkpoint.display());
            let activations = count(&memory["activations"]) + count(&memory["activations_per_token"]) * context;
            assert_eq!(count(&at["activations"]), activations);
            assert_eq!(count(&at["total"]), kv + recurrent + activations + count(&memory["weights"]));
        }
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    assert_eq!(inspect(&hf(), None), inspect(&hf(), None));
}

/// The name of the bundled checkpoint gives way to one of the same length that would end the page's data.
#[test]
fn the_page_holds_the_same_document_whatever_a_name_is() {
    let scratch = Scratch::new();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/model.Q8_0.gguf");
    let (name, hostile) = (b"Little Storyteller 5M", b"</script><b id=evil>x");
    let mut bytes = fs::read(demo).unwrap();
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(hostile);
    let checkpoint = scratch.file("model.gguf", &bytes);
    let page = scratch.join("plan.html");
    let output = forge().args(["inspect", "--html"]).arg(&page).arg(&checkpoint).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = fs::read_to_string(&page).unwrap();
    let (_, data) = text.split_once("id=\"data\">").unwrap();
    let (data, rest) = data.split_once("</script>").unwrap();
    let output = forge().args(["inspect", "--plan", "--json"]).arg(&checkpoint).output().unwrap();
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap(), plan);
    assert_eq!(plan["model"]["name"], String::from_utf8_lossy(hostile).as_ref());
    assert!(rest.trim_start().starts_with("<script>") && !text.contains("<b id=evil>"));
    // The prompt goes with it, a plan's tables do not; a page that cannot be written is an error.
    for (args, code) in [(&["--prompt", "5"][..], 0), (&["--plan"], 2), (&["--json"], 2)] {
        let output = forge().args(["inspect", "--html"]).arg(&page).arg(&checkpoint).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
    let nowhere = scratch.join("none/plan.html");
    let output = forge().args(["inspect", "--html"]).arg(&nowhere).arg(&checkpoint).output().unwrap();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("plan.html: No such file"));
}

#[test]
fn the_command_writes_nothing_else_and_asks_for_a_plan() {
    let output = forge().args(["inspect", "--plan", "--json"]).arg(hf()).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&plan["format"], &plan["version"]), (&"forge-plan".into(), &1.into()));
    let output = forge().args(["inspect", "--json"]).arg(hf()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    // Of what cannot be planned there is the error alone.
    let scratch = Scratch::new();
    let folder = scratch.hf();
    let config = fs::read_to_string(folder.join("config.json")).unwrap();
    fs::write(folder.join("config.json"), config.replacen("\"llama\"", "\"mamba\"", 1)).unwrap();
    let output = forge().args(["inspect", "--plan", "--json"]).arg(folder).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("mamba"));
}
