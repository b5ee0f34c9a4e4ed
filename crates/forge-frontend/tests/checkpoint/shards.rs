//! Which files of a folder are a model's weights.

use forge_frontend::Warning;
use forge_frontend::checkpoint::{CheckpointError, SafetensorsSet};

use crate::build::Folder;
use crate::safetensors::file;

const INDEX: &str = "model.safetensors.index.json";

/// A file with one tensor of one byte.
fn shard(tensor: &str, byte: u8) -> Vec<u8> {
    file(&format!(r#"{{"{tensor}":{{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}}}"#), &[byte])
}

/// A folder of these files; each name's tensor is the letter that the name is given with.
fn folder(files: &[(&str, &str)]) -> Folder {
    let folder = Folder::new();
    for (name, tensor) in files {
        folder.write(name, &shard(tensor, 1));
    }
    folder
}

fn names(set: &SafetensorsSet) -> Vec<String> {
    set.files().iter().map(|file| file.name()).collect()
}

fn opened(folder: &Folder) -> SafetensorsSet {
    SafetensorsSet::open_dir(folder.path()).expect("the weights are whole")
}

fn refused(folder: &Folder) -> CheckpointError {
    SafetensorsSet::open_dir(folder.path()).expect_err("the weights are not whole")
}

#[test]
fn shards_without_an_index() {
    for files in [
        &[("model-00001-of-00002.safetensors", "a"), ("model-00002-of-00002.safetensors", "b")][..],
        &[("model-00001-of-00001.safetensors", "a")],
        &[("model-1-of-2.safetensors", "a"), ("model-2-of-2.safetensors", "b")],
        &[("model.fp16-00001-of-00001.safetensors", "a")],
        &[("model.00.safetensors", "a"), ("model.01.safetensors", "b")],
        &[("weights.00.safetensors", "a"), ("weights.01.safetensors", "b")],
        &[("model-00001-of-00001.safetensors", "a"), ("model-extra.safetensors", "b")],
    ] {
        // What lies beside them is of no account.
        let folder =
            folder(&[files, &[("consolidated.safetensors", "a"), ("adapter_model.safetensors", "b")]].concat());
        let set = opened(&folder);
        assert_eq!(names(&set), files.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        assert_eq!(set.tensors().len(), files.len());
        assert!(set.warnings().is_empty());
    }
}

#[test]
fn a_missing_shard_is_named() {
    let missing = |files: &[(&str, &str)]| match refused(&folder(files)) {
        CheckpointError::ShardMissing { path, expected } => {
            (path.file_name().expect("a name").to_string_lossy().into_owned(), expected)
        }
        other => panic!("{other}"),
    };
    let (name, expected) =
        missing(&[("model-00001-of-00003.safetensors", "a"), ("model-00003-of-00003.safetensors", "b")]);
    assert_eq!((&*name, &*expected), ("model-00002-of-00003.safetensors", "shard 2 of 3"));
    assert_eq!(missing(&[("model-00002-of-00002.safetensors", "a")]).0, "model-00001-of-00002.safetensors");
    assert_eq!(missing(&[("model-00001-of-4000000000.safetensors", "a")]).1, "shard 2 of 4000000000");

    let indexed = folder(&[("model-00001-of-00002.safetensors", "a")]);
    indexed.write(
        INDEX,
        br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
    );
    let error = refused(&indexed).to_string();
    let line = "model-00002-of-00002.safetensors: expected a shard of model.safetensors.index.json, found no such file";
    assert!(error.ends_with(line), "{error}");
}

#[test]
fn shards_of_two_models() {
    for (first, second) in [
        ("model-00001-of-00002.safetensors", "model-00001-of-00003.safetensors"),
        ("model-00001-of-00001.safetensors", "model_ema-00001-of-00001.safetensors"),
        ("model-00001-of-00001.safetensors", "model-1-of-1.safetensors"),
    ] {
        let error = refused(&folder(&[(first, "a"), (second, "b")]));
        let of_both = |error: &CheckpointError| {
            matches!(error, CheckpointError::TwoSets { first: f, second: s, .. }
                if [f, s].contains(&&first.to_owned()) && [f, s].contains(&&second.to_owned()))
        };
        assert!(of_both(&error), "{error}");
    }
    let twice = folder(&[("model-a.safetensors", "a"), ("model-b.safetensors", "a")]);
    assert!(matches!(refused(&twice), CheckpointError::DuplicateTensor { .. }));
}

#[test]
fn other_files_are_named_with_what_to_do() {
    for (names, words) in [
        (&[][..], "found no weights at all"),
        (&["consolidated.safetensors", "params.json"], "consolidated.safetensors (tensors under Mistral's own names"),
        (&["consolidated-00001-of-00002.safetensors"], "consolidated-00001-of-00002.safetensors (tensors under"),
        (
            &["adapter_config.json", "adapter_model.safetensors"],
            "adapter_model.safetensors (an adapter without its model",
        ),
        (&["pytorch_model.bin"], "pytorch_model.bin (PyTorch's pickles, which are programs"),
        (&["pytorch_model-00001-of-00002.bin", "x.txt"], "pytorch_model-00001-of-00002.bin (PyTorch's pickles"),
        (&["consolidated.00.pth"], "consolidated.00.pth (PyTorch's pickles"),
        (&["other.safetensors"], "other.safetensors (a name that no model's weights have)"),
        (&["m.Q8_0.gguf"], "m.Q8_0.gguf (give this file itself"),
        (&["weights.npz"], "weights.npz (arrays of early MLX"),
        (&["tf_model.h5"], "tf_model.h5 (weights of another library"),
        (&["flax_model.msgpack"], "flax_model.msgpack (weights of another library"),
        (&["model.onnx"], "model.onnx (weights of another library"),
    ] {
        let folder = Folder::new();
        names.iter().for_each(|name| drop(folder.write(name, b"")));
        let error = refused(&folder);
        assert!(matches!(&error, CheckpointError::NoWeights { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn one_file_counts_before_an_index() {
    let whole = ("model.safetensors", "a");
    let indexes: [(&[u8], bool); 5] = [
        // Of an earlier download, whose shards are gone.
        (br#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#, true),
        (br#"{"weight_map":{"a":"model-00001-of-00001.safetensors"}}"#, true),
        (b"{}", true),
        (b"not JSON", true),
        // What mlx-lm writes of a model in one file.
        (br#"{"metadata":{"total_size":1},"weight_map":{"a":"model.safetensors"}}"#, false),
    ];
    for (index, warned) in indexes {
        let folder = folder(&[whole]);
        folder.write(INDEX, index);
        let set = opened(&folder);
        assert_eq!(names(&set), ["model.safetensors"]);
        let expected = Warning::OtherWeights { used: "model.safetensors".to_owned(), unused: INDEX.to_owned() };
        assert_eq!(set.warnings(), if warned { vec![expected] } else { Vec::new() });
    }
    let beside = folder(&[whole, ("model-00001-of-00002.safetensors", "a"), ("model-00002-of-00002.safetensors", "b")]);
    let set = opened(&beside);
    assert_eq!((names(&set), set.tensors().len()), (vec!["model.safetensors".to_owned()], 1));
    let line = "model.safetensors: is used alone; beside it model-00001-of-00002.safetensors, \
        model-00002-of-00002.safetensors: not used";
    assert_eq!(set.warnings().iter().map(ToString::to_string).collect::<Vec<_>>(), [line]);
    // One that counts the file among several is no stale one.
    let folder = folder(&[whole, ("more.safetensors", "b")]);
    folder.write(INDEX, br#"{"weight_map":{"a":"model.safetensors","b":"more.safetensors"}}"#);
    assert_eq!(names(&opened(&folder)), ["model.safetensors", "more.safetensors"]);
}
