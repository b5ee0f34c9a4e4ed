//! The crates that generated projects have in common, compiled once for all of them.
//!
//! Cargo knows a path crate by its place in its workspace, so that in one target directory `runtime/` and `metal-sim/` of every
//! project are the same two crates to it; it compiles them again where a source is newer than what it made of the last. Here
//! files of the same content get the same time, the one at which that content was first seen.

use std::fs::{self, File};
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::{shell, snapshots};

/// Folders of a project that are crates of their own, the same in every project.
pub const CRATES: [&str; 2] = ["runtime", "metal-sim"];

/// Gives the files that `project` shares with others the times that they have there.
///
/// # Errors
/// Files that cannot be read or written.
pub fn align(project: &Path) -> Result<()> {
    let seen = shell::scratch("projects/shared")?;
    for name in CRATES {
        for file in snapshots::walk(&project.join(name))? {
            align_file(&file, &seen.join(file.strip_prefix(project)?))
                .with_context(|| format!("cannot align {}", file.display()))?;
        }
    }
    Ok(())
}

/// `seen` is the content that was last compiled under this name, with its time.
fn align_file(file: &Path, seen: &Path) -> Result<()> {
    let bytes = fs::read(file)?;
    if !fs::read(seen).is_ok_and(|known| known == bytes) {
        fs::create_dir_all(seen.parent().context("a file has a folder")?)?;
        fs::write(seen, &bytes)?;
        // Later than anything that was compiled from what was there before.
        File::options().write(true).open(seen)?.set_modified(SystemTime::now())?;
    }
    let time = fs::metadata(seen)?.modified()?;
    if fs::metadata(file)?.modified()? != time {
        File::options().write(true).open(file)?.set_modified(time)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn time(file: &Path) -> SystemTime {
        fs::metadata(file).unwrap().modified().unwrap()
    }

    #[test]
    fn equal_files_have_equal_times_and_changed_ones_later_ones() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, seen] = ["first", "second", "deep/seen"].map(|name| folder.path().join(name));
        let old = SystemTime::now() - Duration::from_secs(1000);
        fs::write(&first, "one").unwrap();
        fs::write(&second, "one").unwrap();
        File::options().write(true).open(&second).unwrap().set_modified(old).unwrap();
        align_file(&first, &seen).unwrap();
        align_file(&second, &seen).unwrap();
        assert_eq!(time(&first), time(&second));
        // Back and forth: what is compiled next is newer each time.
        let mut last = time(&first);
        for text in ["two", "one", "two"] {
            fs::write(&first, text).unwrap();
            File::options().write(true).open(&first).unwrap().set_modified(old).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            align_file(&first, &seen).unwrap();
            assert!(time(&first) > last, "{text}");
            last = time(&first);
        }
        align_file(&first, &seen).unwrap();
        assert_eq!(time(&first), last);
    }
}
