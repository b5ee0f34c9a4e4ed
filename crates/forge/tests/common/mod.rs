//! Running `forge` as a user does, on small checkpoints.

#![allow(dead_code, reason = "every test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The repository's fixtures of the `llama` case.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/llama")
}

/// A GGUF checkpoint with Q4_0, Q8_0 and F32 tensors.
pub fn gguf() -> PathBuf {
    fixtures().join("model.Q4_0.gguf")
}

/// A Hugging Face folder with BF16 tensors.
pub fn hf() -> PathBuf {
    fixtures().join("hf")
}

/// `forge`.
pub fn forge() -> Command {
    Command::new(env!("CARGO_BIN_EXE_forge"))
}

/// A folder of its own for a test.
pub struct Scratch(TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A copy of the HF fixture that may be damaged.
    pub fn hf(&self) -> PathBuf {
        let to = self.join("checkpoint");
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(hf()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        to
    }

    /// A file of these bytes.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

/// `forge gen CHECKPOINT -o OUTPUT ARGS`.
pub fn generate(checkpoint: &Path, output: &Path, args: &[&str]) -> Output {
    forge().arg("gen").arg(checkpoint).arg("-o").arg(output).args(args).output().unwrap()
}

/// What a run wrote to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("messages are UTF-8")
}

/// Asserts exit code 1 and one line `error: ...` with all of `parts` in it.
#[track_caller]
pub fn assert_error(output: &Output, parts: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && text.ends_with('\n') && text.lines().count() == 1, "{text:?}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// Asserts that generating fails with such an error and leaves nothing.
#[track_caller]
pub fn assert_fails(checkpoint: &Path, args: &[&str], parts: &[&str]) {
    let target = Scratch::new();
    let output = generate(checkpoint, &target.join("project"), args);
    assert_error(&output, parts);
    assert_eq!(names(target.path()), [""; 0], "something was left behind");
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file below a folder with its content, sorted by path.
pub fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                files.push((path.strip_prefix(folder).unwrap().to_owned(), bytes));
            }
        }
    }
    files.sort();
    files
}
