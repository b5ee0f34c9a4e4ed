//! Several GGUF files under one name: which belong together, what each is called, which one is meant.

use std::collections::BTreeMap;

use crate::{Choice, SourceError};

/// A file that may be part of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path below the repository or folder, with slashes.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
}

/// A checkpoint of one or several GGUF files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// The paths of its parts, in order.
    pub parts: Vec<String>,
    /// Bytes of all parts.
    pub bytes: u64,
    /// `Q4_K_M`, `UD-IQ2_M`, `BF16`: as its name says.
    label: Option<String>,
}

/// Files beside language models: image towers and importance matrices.
const OTHERS: [&str; 2] = ["mmproj", "imatrix"];

/// The GGUF checkpoints among some files, the smallest first.
pub fn sets<'a>(files: impl Iterator<Item = &'a Listed>) -> Vec<Set> {
    let mut sets: BTreeMap<String, Vec<&Listed>> = BTreeMap::new();
    for file in files {
        let Some(stem) = file.path.strip_suffix(".gguf") else { continue };
        if OTHERS.iter().any(|other| file_name(stem).to_ascii_lowercase().contains(other)) {
            continue;
        }
        sets.entry(whole(stem).to_owned()).or_default().push(file);
    }
    let mut sets: Vec<Set> = sets
        .into_iter()
        .map(|(stem, mut files)| {
            files.sort_by(|a, b| a.path.cmp(&b.path));
            let label = label(file_name(&stem)).or_else(|| label(stem.rsplit('/').nth(1)?));
            Set {
                bytes: files.iter().map(|file| file.bytes).sum(),
                parts: files.into_iter().map(|file| file.path.clone()).collect(),
                label,
            }
        })
        .collect();
    sets.sort_by(|a, b| (a.bytes, &a.parts).cmp(&(b.bytes, &b.parts)));
    sets
}

/// The one that `wanted` names by its file or quantisation; the only one where nothing is said.
///
/// # Errors
/// [`SourceError::Several`], [`SourceError::NoSuchFile`] and [`SourceError::NoWeights`].
pub fn choose(name: &str, mut sets: Vec<Set>, wanted: Option<&str>) -> Result<Set, SourceError> {
    if sets.is_empty() {
        return Err(SourceError::NoWeights { name: name.to_owned() });
    }
    let found: Vec<usize> = match wanted {
        None => (0..sets.len()).collect(),
        Some(wanted) => {
            let by_file = |set: &Set| set.parts.iter().any(|part| part == wanted);
            let by_name = |set: &Set| set.parts.iter().any(|part| file_name(part) == wanted);
            let by_label = |set: &Set| set.label.as_ref().is_some_and(|label| label.eq_ignore_ascii_case(wanted));
            let by_type = |set: &Set| {
                set.label.as_deref().and_then(|label| label.strip_prefix(DYNAMIC)).is_some_and(|label| {
                    label.strip_prefix('-').is_some_and(|label| label.eq_ignore_ascii_case(wanted))
                })
            };
            let tests: [&dyn Fn(&Set) -> bool; 4] = [&by_file, &by_name, &by_label, &by_type];
            let matches = |test: &dyn Fn(&Set) -> bool| (0..sets.len()).filter(|&at| test(&sets[at])).collect();
            tests.into_iter().map(matches).find(|found: &Vec<usize>| !found.is_empty()).unwrap_or_default()
        }
    };
    let name = || name.to_owned();
    match found[..] {
        [only] => Ok(sets.swap_remove(only)),
        [] => {
            let wanted = wanted.unwrap_or_default().to_owned();
            Err(SourceError::NoSuchFile { name: name(), wanted, choices: choices(&sets) })
        }
        _ => {
            let all = choices(&sets);
            Err(SourceError::Several { name: name(), choices: found.into_iter().map(|at| all[at].clone()).collect() })
        }
    }
}

/// What to write for each: its quantisation where no other has the same, else its file.
pub fn choices(sets: &[Set]) -> Vec<Choice> {
    let choice = |set: &Set| {
        let same = |other: &&Set| other.label == set.label;
        let label = set.label.clone().filter(|_| sets.iter().filter(same).count() == 1);
        let file = set.parts[0].clone();
        Choice { wanted: label.unwrap_or_else(|| file.clone()), file, bytes: set.bytes }
    };
    sets.iter().map(choice).collect()
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A stem without the number of a part: `model-00001-of-00003` (llama.cpp's `gguf-split`).
pub fn whole(stem: &str) -> &str {
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let part = || {
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (rest, number) = rest.rsplit_once('-')?;
        (digits(count) && digits(number)).then_some(rest)
    };
    part().unwrap_or(stem)
}

/// What precedes the type in names of mixes by layer (Unsloth's "dynamic" ones).
const DYNAMIC: &str = "UD";

/// The quantisation that a name ends in or has in it.
fn label(name: &str) -> Option<String> {
    let words: Vec<String> = name.split(['-', '.']).map(str::to_ascii_uppercase).collect();
    let at = words.iter().rposition(|word| is_type(word))?;
    let dynamic = at > 0 && words[at - 1] == DYNAMIC;
    Some(if dynamic { format!("{DYNAMIC}-{}", words[at]) } else { words[at].clone() })
}

/// Whether a word is a type or a mix of them: `Q4_K_M`, `IQ2_XXS`, `TQ1_0`, `BF16`, `MXFP4_MOE`.
fn is_type(word: &str) -> bool {
    let (first, rest) = word.split_once('_').map_or((word, None), |(first, rest)| (first, Some(rest)));
    let quant = ["Q", "IQ", "TQ"].iter().any(|kind| {
        let digits = first.strip_prefix(kind);
        digits.is_some_and(|digits| digits.len() == 1 && digits.bytes().all(|byte| byte.is_ascii_digit()))
    });
    match rest {
        Some(rest) => {
            (quant || ["MXFP4", "NVFP4"].contains(&first))
                && !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        }
        None => quant || ["F16", "BF16", "F32", "FP16", "MXFP4", "NVFP4"].contains(&word),
    }
}

#[cfg(test)]
mod tests {
    use super::{Listed, choices, choose, label, sets, whole};
    use crate::SourceError;

    fn listed(files: &[(&str, u64)]) -> Vec<Listed> {
        files.iter().map(|&(path, bytes)| Listed { path: path.to_owned(), bytes }).collect()
    }

    #[test]
    fn labels_of_names() {
        for (name, expected) in [
            ("Llama-3.2-1B-Instruct-Q4_K_M", Some("Q4_K_M")),
            ("Qwen3-8B-UD-Q4_K_XL", Some("UD-Q4_K_XL")),
            ("gpt-oss-20b-mxfp4", Some("MXFP4")),
            ("Qwen3-Coder-MXFP4_MOE", Some("MXFP4_MOE")),
            ("llama-2-7b-chat.q8_0", Some("Q8_0")),
            ("gemma-3-1b-it-BF16", Some("BF16")),
            ("model-IQ2_XXS", Some("IQ2_XXS")),
            ("Q4_0", Some("Q4_0")),
            ("SmolLM2-135M", None),
            ("QwQ-32B", None),
            ("model-Q12", None),
        ] {
            assert_eq!(label(name).as_deref(), expected, "{name}");
        }
        assert_eq!(whole("model-Q8_0-00001-of-00003"), "model-Q8_0");
        assert_eq!(whole("model-1-of-3"), "model-1-of-3");
    }

    #[test]
    fn parts_are_one_checkpoint_and_towers_none() {
        let files = listed(&[
            ("big-Q8_0-00002-of-00002.gguf", 5),
            ("big-Q8_0-00001-of-00002.gguf", 7),
            ("big-Q4_K_M.gguf", 6),
            ("mmproj-big-F16.gguf", 1),
            ("imatrix_unsloth.gguf", 1),
            ("README.md", 1),
        ]);
        let sets = sets(files.iter());
        assert_eq!(sets.len(), 2);
        assert_eq!((sets[0].bytes, sets[1].bytes), (6, 12));
        assert_eq!(sets[1].parts, ["big-Q8_0-00001-of-00002.gguf", "big-Q8_0-00002-of-00002.gguf"]);
    }

    #[test]
    fn one_is_chosen_by_file_or_quantisation() {
        let files = listed(&[
            ("m-Q4_K_M.gguf", 4),
            ("m-UD-Q4_K_XL.gguf", 5),
            ("BF16/m-00001-of-00001.gguf", 9),
            ("other-Q4_K_M.gguf", 3),
        ]);
        let sets = sets(files.iter());
        let file = |wanted: &str| choose("n", sets.clone(), Some(wanted)).map(|set| set.parts[0].clone());
        assert_eq!(file("bf16").unwrap(), "BF16/m-00001-of-00001.gguf");
        assert_eq!(file("Q4_K_XL").unwrap(), "m-UD-Q4_K_XL.gguf");
        assert_eq!(file("UD-Q4_K_XL").unwrap(), "m-UD-Q4_K_XL.gguf");
        assert_eq!(file("m-00001-of-00001.gguf").unwrap(), "BF16/m-00001-of-00001.gguf");
        assert_eq!(file("other-Q4_K_M.gguf").unwrap(), "other-Q4_K_M.gguf");
        // Two have this type: only their files tell them apart, and both are offered.
        match file("q4_k_m").unwrap_err() {
            SourceError::Several { choices, .. } => {
                let wanted: Vec<&str> = choices.iter().map(|choice| choice.wanted.as_str()).collect();
                assert_eq!(wanted, ["other-Q4_K_M.gguf", "m-Q4_K_M.gguf"]);
            }
            error => panic!("{error}"),
        }
        let error = file("Q2_K").unwrap_err();
        assert!(matches!(&error, SourceError::NoSuchFile { wanted, .. } if wanted == "Q2_K"), "{error}");
        let line = "n: there is no Q2_K; there is other-Q4_K_M.gguf, m-Q4_K_M.gguf, UD-Q4_K_XL, BF16";
        assert_eq!(error.to_string(), line);
        assert!(matches!(choose("n", sets.clone(), None), Err(SourceError::Several { .. })));
        assert!(matches!(choose("n", Vec::new(), None), Err(SourceError::NoWeights { .. })));
        assert_eq!(choices(&sets)[3].wanted, "BF16");
    }
}
