//! Which files of a folder hold a model's weights, where no index says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::CheckpointError;
use super::file::names;

/// What the names of weights begin with: mlx-lm reads every `model*.safetensors`, and where there is none what early
/// converters wrote.
const STEMS: [&str; 2] = ["model", "weight"];
const EXTENSION: &str = ".safetensors";

/// The names of all `model*.safetensors` of a folder, else of all `weight*.safetensors`, sorted.
pub(super) fn list(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let names = names(folder)?;
    let begin = |stem: &str| -> Vec<String> {
        names.iter().filter(|name| name.starts_with(stem) && name.ends_with(EXTENSION)).cloned().collect()
    };
    Ok(STEMS.into_iter().map(begin).find(|found| !found.is_empty()).unwrap_or_default())
}

/// The files to read of a folder without an index: all of [`list`], as mlx-lm has it.
///
/// # Errors
/// There is none, one of `model-NNNNN-of-NNNNN` is missing, or two such sets are there.
pub(super) fn find(folder: &Path) -> Result<Vec<String>, CheckpointError> {
    let weights = list(folder)?;
    if weights.is_empty() {
        return Err(CheckpointError::NoWeights { path: folder.to_owned(), found: instead(&names(folder)?) });
    }
    let mut sets: BTreeMap<(&str, u32, usize), BTreeSet<u32>> = BTreeMap::new();
    let mut first_names = Vec::new();
    for name in &weights {
        let Some(Shard { stem, number, count, digits }) = Shard::of(name) else { continue };
        let set = sets.entry((stem, count, digits)).or_default();
        if set.is_empty() {
            first_names.push(name);
        }
        set.insert(number);
    }
    if let [first, second, ..] = first_names[..] {
        let (first, second) = (first.clone(), second.clone());
        return Err(CheckpointError::TwoSets { path: folder.to_owned(), first, second });
    }
    for ((stem, count, digits), numbers) in sets {
        if let Some(missing) = (1..=count).find(|number| !numbers.contains(number)) {
            let name = format!("{stem}-{missing:0digits$}-of-{count:0digits$}{EXTENSION}");
            return Err(CheckpointError::ShardMissing {
                path: folder.join(name),
                expected: format!("shard {missing} of {count}"),
            });
        }
    }
    Ok(weights)
}

/// A shard's name taken to pieces: `<stem>-NNNNN-of-NNNNN.safetensors`, numbers from 1.
struct Shard<'a> {
    stem: &'a str,
    number: u32,
    count: u32,
    digits: usize,
}

impl<'a> Shard<'a> {
    fn of(name: &'a str) -> Option<Self> {
        let (rest, count) = name.strip_suffix(EXTENSION)?.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let number_of =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        Some(Self { stem, number: number_of(number)?, count: number_of(count)?, digits: count.len() })
    }
}

/// What a folder holds in place of weights that can be read, and what to do about it.
fn instead(names: &[String]) -> String {
    const KINDS: [(&[&str], &[&str], &str); 7] = [
        (&["adapter_model"], &[".safetensors"], "an adapter without its model: merge it into the model first"),
        (
            &["consolidated"],
            &[".safetensors"],
            "tensors under Mistral's own names: take the folder's Hugging Face form",
        ),
        (&[""], &[".safetensors"], "a name that no model's weights have"),
        (&[""], &[".gguf"], "give this file itself, not its folder"),
        (
            &[""],
            &[".bin", ".pt", ".pth", ".ckpt"],
            "PyTorch's pickles, which are programs: convert them to safetensors",
        ),
        (&["weights", "model"], &[".npz"], "arrays of early MLX: convert them again"),
        (&[""], &[".h5", ".msgpack", ".onnx"], "weights of another library: convert them to safetensors"),
    ];
    let of_kind = |begins: &[&str], ends: &[&str]| {
        names.iter().find(|name| {
            begins.iter().any(|begin| name.starts_with(begin)) && ends.iter().any(|end| name.ends_with(end))
        })
    };
    let found = KINDS.iter().find_map(|(begins, ends, reason)| Some((of_kind(begins, ends)?, reason)));
    found.map_or_else(|| "no weights at all".to_owned(), |(name, reason)| format!("{name} ({reason})"))
}
