//! What the commands do with a name of a model: find it, show how far a transfer is and what there is to choose from.

use std::cell::RefCell;
use std::path::Path;

use forge_frontend::Checkpoint;
use forge_sources::{Choice, Environment, Located, Source, SourceError, Watcher};
use indicatif::ProgressBar;

use crate::cli::warn;
use crate::{Error, chips, interrupt, progress, table, units};

/// Finds the checkpoint that an argument names, and fetches it where that has to be.
///
/// # Errors
/// Whatever [`forge_sources::locate`] says. Where there is a choice, it is on stdout.
pub(crate) fn locate(argument: &Path, offline: bool, quiet: bool) -> Result<Located, Error> {
    let source = Source::parse(argument.as_os_str())?;
    let mut environment = Environment::of_process();
    environment.offline |= offline;
    let watcher = Transfer { quiet, bar: RefCell::new(ProgressBar::hidden()) };
    let result = forge_sources::locate(&source, &environment, &watcher);
    watcher.end();
    match result {
        Ok(located) => {
            if let Some(reason) = &located.stale {
                warn(&not_asked(reason));
            }
            Ok(located)
        }
        Err(SourceError::Cancelled) => Err(Error::Interrupted),
        Err(error) => {
            if let SourceError::Several { choices, .. } = &error {
                offer(choices, chips::usable_memory()).iter().for_each(|line| anstream::println!("{line}"));
            }
            Err(error.into())
        }
    }
}

/// The line on a copy that may not be the newest.
fn not_asked(reason: &str) -> String {
    format!("{reason}; the copy in the cache is taken")
}

/// What there is to choose from, and what of it a machine with this much memory holds.
fn offer(choices: &[Choice], memory: Option<u64>) -> Vec<String> {
    let fits = |choice: &Choice| match memory {
        Some(memory) if choice.bytes <= memory => "fits",
        Some(_) => "too large",
        None => "",
    };
    let row = |choice: &Choice| {
        // A file of its own name needs no second column of it.
        let file = if choice.file == choice.wanted { String::new() } else { choice.file.clone() };
        [choice.wanted.clone(), file, units::bytes(choice.bytes), fits(choice).to_owned()]
    };
    let here = memory.map(|memory| format!("{} here", units::bytes(memory))).unwrap_or_default();
    let mut rows = vec![["choice".to_owned(), "file".to_owned(), "size".to_owned(), here]];
    rows.extend(choices.iter().map(row));
    table::aligned(&rows, 2)
}

/// Gives a model the name by which it was found, where its checkpoint says none and its file or folder is called by a digest or a
/// commit.
pub(crate) fn call(name: &mut String, located: &Located) {
    let path = located.path.canonicalize().unwrap_or_default();
    let is_of = |path: &Path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        *name == file.strip_suffix(".gguf").unwrap_or(&file)
    };
    if let Some(found) = located.name.as_ref().filter(|_| is_of(&path) || is_of(&located.path)) {
        name.clone_from(found);
    }
}

/// A checkpoint, called as [`call`] says.
pub(crate) fn load(located: &Located) -> Result<Checkpoint, Error> {
    let mut checkpoint = forge_frontend::load(&located.path)?;
    call(&mut checkpoint.graph.config.name, located);
    Ok(checkpoint)
}

/// A bar for each file.
struct Transfer {
    quiet: bool,
    bar: RefCell<ProgressBar>,
}

impl Watcher for Transfer {
    fn begin(&self, file: &str, done: u64, total: u64) {
        let bar = progress::transfer(file, total, self.quiet);
        bar.set_position(done);
        bar.reset_eta();
        self.bar.replace(bar);
    }

    fn advance(&self, bytes: u64) {
        self.bar.borrow().inc(bytes);
    }

    fn restart(&self) {
        self.bar.borrow().set_position(0);
    }

    fn end(&self) {
        self.bar.borrow().finish_and_clear();
    }

    fn cancelled(&self) -> bool {
        interrupt::check().is_err()
    }
}

#[cfg(test)]
mod tests {
    use forge_sources::Choice;

    use super::offer;

    #[test]
    fn what_fits_is_marked() {
        let choice =
            |wanted: &str, file: &str, bytes| Choice { wanted: wanted.to_owned(), file: file.to_owned(), bytes };
        let choices = [choice("Q4_K_M", "m-Q4_K_M.gguf", 4 << 30), choice("a.gguf", "a.gguf", 16 << 30)];
        let expected = [
            "choice  file               size  8.0 GiB here",
            "Q4_K_M  m-Q4_K_M.gguf   4.0 GiB          fits",
            "a.gguf                 16.0 GiB     too large",
        ];
        assert_eq!(offer(&choices, Some(8 << 30)), expected);
        assert_eq!(offer(&choices, None)[1], "Q4_K_M  m-Q4_K_M.gguf   4.0 GiB");
    }
}
