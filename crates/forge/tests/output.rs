//! The folder that `forge gen` makes: whole or not at all, the same for the same input, careful with what a person
//! changed in it.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use common::{Scratch, assert_error, forge, generate, gguf, hf, names, stderr, tree};
use forge::Error;
use sha2::{Digest, Sha256};

#[track_caller]
fn must_generate(checkpoint: &Path, output: &Path, args: &[&str]) -> String {
    let output = generate(checkpoint, output, args);
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let scratch = Scratch::new();
    for (checkpoint, name) in [(gguf(), "gguf"), (hf(), "hf")] {
        let (first, second) = (scratch.join(name), scratch.join("deeper/second"));
        must_generate(&checkpoint, &first, &["--name", "same"]);
        must_generate(&checkpoint, &second, &["--name", "same"]);
        assert!(tree(&first) == tree(&second), "two runs on {name} differ");
        fs::remove_dir_all(scratch.join("deeper")).unwrap();
    }
}

#[test]
fn a_tile_has_the_tokens_that_are_asked_for_and_the_readme_says_so() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    must_generate(&gguf(), &project, &["--tile", "48"]);
    let model = fs::read_to_string(project.join("src/model.rs")).unwrap();
    assert!(model.contains("pub const PREFILL_TILE: usize = 48;"));
    assert!(fs::read_to_string(project.join("README.md")).unwrap().contains(" --tile 48"));
    for wrong in ["0", "31", "4097", "many"] {
        let output = generate(&gguf(), &project, &["--force", "--tile", wrong]);
        let message = stderr(&output);
        assert!(!output.status.success() && message.contains("expected a number from 32 to 4096"), "{message}");
    }
}

#[test]
fn a_new_folder_has_the_usual_permissions_and_no_scratch_beside_it() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    let messages = must_generate(&gguf(), &project, &["--quiet"]);
    assert_eq!(messages, "");
    assert_eq!(names(scratch.path()), ["project"]);
    let plain = scratch.join("plain");
    fs::create_dir(&plain).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&project), mode(&plain));
}

#[test]
fn templates_that_do_not_parse_are_warned_of_and_those_with_names_are_kept() {
    let scratch = Scratch::new();
    let (checkpoint, project) = (scratch.hf(), scratch.join("project"));
    fs::write(checkpoint.join("chat_template.jinja"), "{% trans %}x{% endtrans %}").unwrap();
    fs::write(checkpoint.join("chat_template_tool_use.jinja"), "tools").unwrap();
    let messages = must_generate(&checkpoint, &project, &["--quiet"]);
    assert!(
        messages
            .contains("warning: chat_template.jinja: chat template: syntax error: unknown statement trans (line 1)"),
        "{messages}"
    );
    assert_eq!(messages.lines().count(), 1, "{messages}");
    let generation: serde_json::Value =
        serde_json::from_slice(&fs::read(project.join("generation.json")).unwrap()).unwrap();
    assert_eq!(generation["chat_templates"], serde_json::json!({ "tool_use": "tools" }));
}

#[test]
fn no_path_of_this_machine_is_in_the_output() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    must_generate(&hf(), &project, &[]);
    let here = scratch.path().to_str().unwrap().as_bytes();
    let repository = env!("CARGO_MANIFEST_DIR").as_bytes();
    for (name, bytes) in tree(&project) {
        for path in [here, repository] {
            assert!(!bytes.windows(path.len()).any(|window| window == path), "{}", name.display());
        }
    }
}

#[test]
fn an_existing_project_is_refused_without_force() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    must_generate(&gguf(), &project, &[]);
    let before = tree(&project);
    assert_error(&generate(&gguf(), &project, &[]), &["already exists", "--force"]);
    assert!(tree(&project) == before);
}

#[test]
fn force_replaces_what_forge_wrote_and_keeps_the_rest() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    must_generate(&gguf(), &project, &["--name", "same"]);
    let fresh = tree(&project);
    fs::write(project.join("src/model.rs"), "// mine\n").unwrap();
    fs::write(project.join("notes.txt"), "my notes\n").unwrap();
    fs::remove_file(project.join("src/main.rs")).unwrap();
    let untouched = fs::metadata(project.join("Cargo.toml")).unwrap().ino();

    let messages = must_generate(&gguf(), &project, &["--name", "same", "--force", "--quiet"]);
    assert_eq!(messages.lines().count(), 1, "{messages}");
    assert!(messages.starts_with("warning: ") && messages.contains("src/model.rs"), "{messages}");
    assert_eq!(fs::read(project.join(".forge/backup/1/src/model.rs")).unwrap(), b"// mine\n");
    assert_eq!(fs::read(project.join("notes.txt")).unwrap(), b"my notes\n");
    assert_eq!(fs::metadata(project.join("Cargo.toml")).unwrap().ino(), untouched);
    fs::remove_dir_all(project.join(".forge/backup")).unwrap();
    fs::remove_file(project.join("notes.txt")).unwrap();
    assert!(tree(&project) == fresh, "a forced project differs from a fresh one");

    // A second edit does not overwrite the first copy.
    for text in ["// one\n", "// two\n"] {
        fs::write(project.join("src/model.rs"), text).unwrap();
        must_generate(&gguf(), &project, &["--name", "same", "--force", "--quiet"]);
    }
    assert_eq!(fs::read(project.join(".forge/backup/2/src/model.rs")).unwrap(), b"// two\n");
}

/// Adds a file to a project as if an earlier Forge had written it.
fn written_before(project: &Path, name: &str, text: &str) {
    let path = project.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    let manifest = project.join(".forge/manifest.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    let digest: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    json["files"][name] = digest.into();
    fs::write(manifest, json.to_string()).unwrap();
}

#[test]
fn force_moves_a_project_of_an_older_layout_to_this_one() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    must_generate(&gguf(), &project, &["--name", "same"]);
    let fresh = tree(&project);
    // The runtime was a module before it was a crate.
    for name in ["mod.rs", "gpu/mod.rs", "gpu/metal/mod.rs", "server/mod.rs"] {
        written_before(&project, &format!("src/runtime/{name}"), "//! Of the older layout.\n");
    }
    fs::write(project.join("src/runtime/gpu/mod.rs"), "//! Mine.\n").unwrap();
    fs::write(project.join("src/runtime/server/notes.txt"), "my notes\n").unwrap();

    let messages = must_generate(&gguf(), &project, &["--name", "same", "--force", "--quiet"]);
    assert_eq!(messages.lines().count(), 1, "{messages}");
    assert!(messages.contains("src/runtime/gpu/mod.rs"), "{messages}");
    assert_eq!(fs::read(project.join(".forge/backup/1/src/runtime/gpu/mod.rs")).unwrap(), b"//! Mine.\n");
    // What is left of the old folders is what Forge did not write.
    assert_eq!(names(&project.join("src/runtime")), ["server"]);
    assert_eq!(names(&project.join("src/runtime/server")), ["notes.txt"]);
    fs::remove_dir_all(project.join("src/runtime")).unwrap();
    fs::remove_dir_all(project.join(".forge/backup")).unwrap();
    assert!(tree(&project) == fresh, "a project of an older layout differs from a fresh one");
    assert!(!fresh.iter().any(|(name, _)| name.starts_with("src/runtime")));
}

#[test]
fn force_keeps_the_weights_of_the_same_checkpoint() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    let weights = || fs::metadata(project.join("weights.safetensors")).unwrap().ino();
    must_generate(&gguf(), &project, &[]);
    let first = weights();
    must_generate(&gguf(), &project, &["--force", "--kv", "f32"]);
    assert_eq!(weights(), first, "the same weights were packed again");

    // The same sizes and formats, other numbers.
    let mut bytes = fs::read(gguf()).unwrap();
    let end = bytes.len();
    bytes[end - 40..].fill(0x11);
    let other = scratch.file("other.gguf", &bytes);
    must_generate(&other, &project, &["--force"]);
    assert_ne!(weights(), first, "weights of another checkpoint were kept");
    let other_project = scratch.join("other");
    must_generate(&other, &other_project, &["--name", "project"]);
    assert!(
        fs::read(project.join("weights.safetensors")).unwrap()
            == fs::read(other_project.join("weights.safetensors")).unwrap()
    );
}

#[test]
fn a_failed_force_leaves_the_project_as_it_was() {
    let scratch = Scratch::new();
    let project = scratch.join("project");
    must_generate(&gguf(), &project, &[]);
    // A folder where a file has to go, in the middle of the update.
    fs::remove_file(project.join("src/model.rs")).unwrap();
    fs::create_dir(project.join("src/model.rs")).unwrap();
    fs::write(project.join("Cargo.toml"), "# mine\n").unwrap();
    let before = tree(&project);
    let output = generate(&gguf(), &project, &["--force"]);
    assert_error(&output, &["src/model.rs"]);
    let after = tree(&project);
    let changed: Vec<_> = after.iter().filter(|file| !before.contains(file)).map(|(name, _)| name).collect();
    assert!(after == before, "{changed:?}");
    assert!(!names(&project.join(".forge")).iter().any(|name| name.starts_with(".forge-")));
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/demo/model.Q8_0.gguf");
    // How long a run takes depends on the machine: the pauses are shares of what one takes here.
    let scratch = Scratch::new();
    let start = Instant::now();
    must_generate(&demo, &scratch.join("project"), &[]);
    let whole = start.elapsed();
    let mut interrupted = 0;
    for percent in [1, 5, 10, 20, 30, 50, 70, 90] {
        for signal in ["-INT", "-TERM"] {
            let scratch = Scratch::new();
            let child = forge()
                .args(["gen", "--quiet", "-o"])
                .args([scratch.join("project"), demo.clone()])
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            thread::sleep(whole * percent / 100);
            let kill = std::process::Command::new("kill").args([signal, &child.id().to_string()]).output();
            assert!(kill.is_ok());
            let output = child.wait_with_output().unwrap();
            let status = output.status;
            // A signal before there is a handler ends the program as it ends any.
            if let Some(code) = status.code().filter(|code| *code != 0) {
                assert_eq!((code, stderr(&output)), (130, format!("error: {}\n", Error::Interrupted)));
            }
            if status.success() {
                assert_eq!(names(scratch.path()), ["project"]);
                assert!(scratch.join("project/weights.safetensors").exists());
            } else {
                assert_eq!(names(scratch.path()), [""; 0], "after {percent}% of a run and {signal}: {status}");
                interrupted += 1;
            }
        }
    }
    assert!(interrupted >= 4, "only {interrupted} of 16 runs were interrupted");
}

#[test]
fn help_has_examples() {
    for args in [&["--help"][..], &["gen", "--help"], &["inspect", "--help"]] {
        let output = forge().args(args).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Examples:\n  forge "), "{text}");
    }
}

#[test]
fn inspect_tells_sizes_formats_and_memory() {
    let output = forge().args(["inspect", "--context", "64"]).arg(gguf()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["Q4_0", "Q8_0", "F32", "hidden size", "64", "Memory at 64 tokens", "KV cache", "dispatches"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "colour where there is no terminal");
}

#[test]
fn inspect_accounts_for_every_kernel() {
    let args = ["inspect", "--context", "64", "--plan", "--prompt", "40", "--bandwidth", "100"];
    let output = forge().args(args).arg(gguf()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, plan) = text.split_once("Decode, one token after 63 others").expect("the table of a token");
    let (decode, prompt) = plan.split_once("Prompt of 40 tokens in 1 tile").expect("the table of a prompt");
    // Of each of the three layers a dispatch behind a barrier, in a prompt of all but the last layer, which ends with its keys and values.
    for (table, kernel, count) in [(decode, "down_proj ", "3"), (prompt, "down_proj_tile ", "2")] {
        let row = |name: &str| {
            let row =
                table.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{table}"));
            row.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row(kernel)[1..3], [count, count], "{table}");
        let sum: u64 = table
            .lines()
            .skip(2)
            .take_while(|line| !line.trim_start().starts_with("in all"))
            .map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap())
            .sum();
        assert_eq!(row("in all")[2], sum.to_string(), "{table}");
        assert!(table.contains("of the lower bound"), "{table}");
    }
    assert!(text.contains("100 GB/s") && !text.contains("M1, 68 GB/s"), "{text}");
    let refused = forge().args(["inspect", "--prompt", "40"]).arg(gguf()).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
}
