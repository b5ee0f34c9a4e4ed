//! Links: those that people and their tools make are followed, those that lead to somebody's secrets are not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use forge_frontend::checkpoint::{CheckpointError, GgufFile, MappedFile, SafetensorsSet};
use forge_frontend::{Checkpoint, FrontendError, load};

use crate::build::{Folder, Gguf, fixture};

const TEMPLATE: &str = "{% for message in messages %}{{ message.content }}{% endfor %}";

/// A copy of a Hugging Face folder with a chat template.
fn model(at: &Path) -> PathBuf {
    fs::create_dir_all(at).expect("a folder");
    for entry in fs::read_dir(fixture("tiny/qwen2/hf")).expect("the fixture").flatten() {
        fs::copy(entry.path(), at.join(entry.file_name())).expect("a copy");
    }
    fs::write(at.join("chat_template.jinja"), TEMPLATE).expect("written");
    at.to_owned()
}

/// Moves a file elsewhere and leaves a link.
fn link_out(folder: &Path, name: &str, to: &Path) {
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::rename(folder.join(name), to).expect("moved");
    symlink(to, folder.join(name)).expect("a link");
}

fn same(found: &Checkpoint, expected: &Checkpoint) {
    assert_eq!(found.assets, expected.assets);
    assert_eq!(found.graph.weights, expected.graph.weights);
    let bytes = |checkpoint: &Checkpoint| checkpoint.files[0].bytes().to_vec();
    assert!(bytes(found) == bytes(expected));
}

const FILES: [&str; 5] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"];

#[test]
fn any_file_may_be_elsewhere() {
    let root = Folder::new();
    let plain = load(&model(&root.path().join("plain"))).expect("a checkpoint");
    assert_eq!(plain.assets.chat_template.as_deref(), Some(TEMPLATE));
    for name in FILES {
        let folder = model(&root.path().join("one").join(name));
        link_out(&folder, name, &root.path().join("disk").join(format!("0f3a-{name}-blob")));
        same(&load(&folder).expect(name), &plain);
    }
    let folder = model(&root.path().join("all"));
    FILES.iter().for_each(|name| link_out(&folder, name, &root.path().join("all-disk").join(name)));
    same(&load(&folder).expect("a checkpoint"), &plain);
}

#[test]
fn chains_relative_links_and_whole_folders() {
    let root = Folder::new();
    let folder = model(&root.path().join("models/m"));
    let plain = load(&folder).expect("a checkpoint");
    link_out(&folder, "tokenizer.json", &root.path().join("cache/a"));
    // The second link is relative, and leads through a folder that is a link itself.
    fs::create_dir(root.path().join("cache/deep")).expect("a folder");
    fs::rename(root.path().join("cache/a"), root.path().join("cache/deep/blob")).expect("moved");
    symlink("deep", root.path().join("cache/short")).expect("a link");
    symlink("short/blob", root.path().join("cache/a")).expect("a link");
    symlink("models/m", root.path().join("mine")).expect("a link");
    same(&load(&root.path().join("mine")).expect("a checkpoint"), &plain);
}

#[test]
fn a_link_to_nothing_is_named() {
    let root = Folder::new();
    for name in FILES {
        let folder = model(&root.path().join(name));
        fs::remove_file(folder.join(name)).expect("removed");
        symlink("/nonexistent/blob", folder.join(name)).expect("a link");
        let error = load(&folder).expect_err(name);
        let broken = |error: &FrontendError| {
            matches!(error, FrontendError::Container(CheckpointError::BrokenLink { path, target })
                if path.ends_with(name) && target == Path::new("/nonexistent/blob"))
        };
        assert!(broken(&error), "{error}");
    }
    let folder = model(&root.path().join("loop"));
    fs::remove_file(folder.join("config.json")).expect("removed");
    symlink("config.json", folder.join("config.json")).expect("a link");
    let error = load(&folder).expect_err("a loop").to_string();
    assert!(error.contains("config.json: "), "{error}");
}

#[test]
fn what_is_no_such_file_stays_outside() {
    let root = Folder::new();
    let secrets = [
        root.write("key", b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n"),
        root.write("token.json", br#"{"access_token": "secret", "bos": 1}"#),
        root.write("page.html", b"<p>{{ user.password }}</p> messages"),
        root.write("empty", b""),
    ];
    for name in FILES.iter().filter(|name| **name != "model.safetensors") {
        for (number, secret) in secrets.iter().enumerate() {
            let folder = model(&root.path().join(format!("{number}-{name}")));
            fs::remove_file(folder.join(name)).expect("removed");
            symlink(secret, folder.join(name)).expect("a link");
            let error = load(&folder).expect_err(name);
            let outside = |error: &FrontendError| matches!(error, FrontendError::Container(CheckpointError::Outside { path, .. }) if path.ends_with(name));
            assert!(outside(&error), "{error}");
            assert!(!error.to_string().contains("BEGIN") && !error.to_string().contains("access_token"), "{error}");
        }
    }
    // Processes have files too, of no length and with an end.
    let folder = model(&root.path().join("proc"));
    fs::remove_file(folder.join("chat_template.jinja")).expect("removed");
    symlink("/proc/self/environ", folder.join("chat_template.jinja")).expect("a link");
    assert!(load(&folder).is_err());
}

#[test]
fn what_git_leaves_in_place_of_a_file() {
    let root = Folder::new();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123\n";
    for name in FILES {
        let folder = model(&root.path().join(name));
        fs::write(folder.join(name), pointer).expect("written");
        let error = load(&folder).expect_err(name);
        let pointed = |error: &FrontendError| matches!(error, FrontendError::Container(CheckpointError::LfsPointer { path }) if path.ends_with(name));
        assert!(pointed(&error), "{error}");
        // Without links, Git writes where one would lead: that is followed as a link is, once.
        let folder = model(&root.path().join(format!("text-{name}")));
        let blob = root.path().join("blob");
        fs::rename(folder.join(name), &blob).expect("moved");
        fs::write(folder.join(name), "../blob").expect("written");
        load(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        fs::rename(&blob, root.path().join("blob-2")).expect("moved");
        fs::write(&blob, format!("{}/blob-2", root.path().display())).expect("written");
        let error = load(&folder).expect_err(name);
        let again = |error: &FrontendError| matches!(error, FrontendError::Container(CheckpointError::LinkText { path, .. }) if path.ends_with(name));
        assert!(again(&error), "{error}");
        // What it leads to has to be what its name says.
        if name != "model.safetensors" {
            fs::write(&blob, "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk=\n").expect("written");
            let error = load(&folder).expect_err(name);
            let outside = |error: &FrontendError| matches!(error, FrontendError::Container(CheckpointError::Outside { path, .. }) if path.ends_with(name));
            assert!(outside(&error), "{error}");
        }
    }
    let gguf = root.write("m.gguf", pointer);
    assert!(matches!(GgufFile::open(&gguf), Err(CheckpointError::LfsPointer { .. })));
}

#[test]
fn files_that_are_none() {
    let root = Folder::new();
    let folder = model(&root.path().join("m"));
    fs::remove_file(folder.join("config.json")).expect("removed");
    fs::create_dir(folder.join("config.json")).expect("a folder");
    let error = load(&folder).expect_err("a folder");
    assert!(matches!(error, FrontendError::Container(CheckpointError::NotAFile { .. })), "{error}");
    assert!(matches!(MappedFile::open(root.path()), Err(CheckpointError::NotAFile { .. })));

    let folder = model(&root.path().join("long"));
    let file = fs::File::create(folder.join("config.json")).expect("a file");
    file.set_len(1 << 40).expect("a sparse file");
    let error = load(&folder).expect_err("too long");
    let long = |error: &FrontendError| matches!(error, FrontendError::Container(CheckpointError::TooLarge { found, .. }) if *found == 1 << 40);
    assert!(long(&error), "{error}");
}

#[test]
fn parts_beside_what_a_link_leads_to() {
    let root = Folder::new();
    fs::create_dir_all(root.path().join("disk")).expect("a folder");
    for number in 0..2u16 {
        let part = Gguf::new()
            .entry(b"split.count", 2, &2u16.to_le_bytes())
            .entry(b"split.no", 2, &number.to_le_bytes())
            .tensor(&format!("t{number}"), &[4], 0, &[0; 16]);
        fs::write(root.path().join(format!("disk/m-{:05}-of-00002.gguf", number + 1)), part.bytes()).expect("written");
    }
    for name in ["mine.gguf", "m-00001-of-00002.gguf"] {
        symlink("disk/m-00001-of-00002.gguf", root.path().join(name)).expect("a link");
        let gguf = GgufFile::open(&root.path().join(name)).expect("both parts");
        assert_eq!((gguf.files().len(), gguf.tensors().len()), (2, 2));
    }
    let shards = Folder::new();
    symlink(fixture("tiny/qwen2/hf/model.safetensors"), shards.path().join("model-00001-of-00001.safetensors"))
        .expect("a link");
    assert!(!SafetensorsSet::open_dir(shards.path()).expect("a shard").tensors().is_empty());
}
