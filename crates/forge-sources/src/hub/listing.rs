//! What the hub says of a repository: its commit, and its files with sizes and digests.

use serde::Deserialize;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::cache::is_commit;
use crate::gguf::Listed;

/// A repository at a commit.
#[derive(Debug, Clone)]
pub struct Listing {
    pub commit: String,
    pub entries: Vec<Entry>,
}

/// A file of a repository.
#[derive(Debug, Clone)]
pub struct Entry {
    pub file: Listed,
    pub digest: Digest,
}

/// What identifies a file's content; also the name of its blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// Of large files (Git LFS): of the bytes.
    Sha256(String),
    /// Of others: of a Git blob, `blob SIZE` and a zero before the bytes.
    Git(String),
}

impl Digest {
    pub fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "SHA-256",
            Self::Git(_) => "Git SHA-1",
        }
    }

    /// A running digest of this kind, for a file of `bytes` bytes.
    pub fn begin(&self, bytes: u64) -> Running {
        match self {
            Self::Sha256(_) => Running::Sha256(Sha256::new()),
            Self::Git(_) => Running::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }
}

/// A digest of the bytes so far.
pub enum Running {
    Sha256(Sha256),
    Git(Sha1),
}

impl Running {
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub fn hex(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// `GET /api/models/OWNER/NAME/revision/REVISION?blobs=true`.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl Listing {
    /// Reads the hub's answer. Names and digests become paths: none may lead out of the cache.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if !is_commit(&answer.sha) {
            return Err(format!("its commit is {:?}", answer.sha));
        }
        let entries = answer.siblings.into_iter().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { commit: answer.sha, entries })
    }
}

fn entry(sibling: Sibling) -> Result<Entry, String> {
    let path = sibling.rfilename;
    let inside = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if !inside || path.contains(['\\', '\0']) {
        return Err(format!("it names a file {path:?}"));
    }
    let (digest, bytes) = match (sibling.lfs, sibling.blob_id, sibling.size) {
        (Some(lfs), _, _) => (Digest::Sha256(lfs.sha256), lfs.size),
        (None, Some(id), Some(size)) => (Digest::Git(id), size),
        _ => return Err(format!("it gives no size and digest of {path}")),
    };
    let length = match digest {
        Digest::Sha256(_) => 64,
        Digest::Git(_) => 40,
    };
    let hex = digest.hex();
    if hex.len() != length || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(format!("the {} of {path} is {hex:?}", digest.kind()));
    }
    Ok(Entry { file: Listed { path, bytes }, digest })
}

#[cfg(test)]
mod tests {
    use super::{Digest, Listing};

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let hex = |digest: Digest| {
            let mut running = digest.begin(6);
            running.update(b"hel");
            running.update(b"lo\n");
            running.hex()
        };
        // `printf 'hello\n' | git hash-object --stdin` and `sha256sum`.
        assert_eq!(hex(Digest::Git(String::new())), "ce013625030ba8dba906f756967f9e9ca394464a");
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(hex(Digest::Sha256(String::new())), sha256);
    }

    #[test]
    fn nothing_of_an_answer_leads_out_of_the_cache() {
        let (commit, id, sha) = ("a".repeat(40), "b".repeat(40), "c".repeat(64));
        let answer = |commit: &str, file: &str, rest: &str| {
            Listing::parse(
                format!(r#"{{"sha": "{commit}", "siblings": [{{"rfilename": "{file}", {rest}}}]}}"#).as_bytes(),
            )
        };
        let small = format!(r#""size": 3, "blobId": "{id}""#);
        assert_eq!(answer(&commit, "a/b.json", &small).unwrap().entries[0].digest, Digest::Git(id.clone()));
        let large =
            format!(r#""size": 9, "blobId": "{id}", "lfs": {{"sha256": "{sha}", "size": 9, "pointerSize": 1}}"#);
        assert_eq!(answer(&commit, "x.gguf", &large).unwrap().entries[0].digest, Digest::Sha256(sha.clone()));
        for (commit, file, rest) in [
            ("../x", "a", small.as_str()),
            (&commit, "../a", &small),
            (&commit, "a//b", &small),
            (&commit, "a\\\\b", &small),
            (&commit, "a", r#""size": 3, "blobId": "../../x""#),
            (&commit, "a", r#""size": 3"#),
        ] {
            assert!(answer(commit, file, rest).is_err(), "{commit} {file} {rest}");
        }
    }
}
