//! What functions return, the message that goes with it, and the wall that no panic passes.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use model::runtime::Error;

/// What a function returns.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForgeStatus {
    /// It is done.
    Ok = 0,
    /// A null pointer where there has to be something.
    Null = 1,
    /// A handle that was freed, or is none of the kind.
    Handle = 2,
    /// A text that is no UTF-8.
    Utf8 = 3,
    /// An argument out of its range.
    Argument = 4,
    /// A buffer that is too small; the size that is needed was written.
    Buffer = 5,
    /// The program was compiled with the header of another version.
    Version = 6,
    /// The model could not be loaded.
    Load = 7,
    /// The text could not be tokenized, or the tokens not be decoded.
    Tokenizer = 8,
    /// The chat template refused the messages, or there is none.
    Template = 9,
    /// A prompt that is empty, too long, or has tokens that the model does not know.
    Prompt = 10,
    /// The model failed on a text.
    Generation = 11,
    /// The text was ended before it began.
    Cancelled = 12,
    /// The text has not come to its end yet.
    Unfinished = 13,
    /// A fault of the library itself; the handles of the call should be freed.
    Panic = 14,
}

impl ForgeStatus {
    /// Its name, as `forge_status_name` has it.
    pub(crate) fn name(status: i32) -> &'static CStr {
        const NAMES: [&CStr; 15] = [
            c"ok",
            c"null pointer",
            c"wrong handle",
            c"no UTF-8",
            c"wrong argument",
            c"buffer too small",
            c"wrong version",
            c"not loaded",
            c"not tokenized",
            c"no prompt of the chat",
            c"wrong prompt",
            c"not generated",
            c"cancelled",
            c"not finished",
            c"fault of the library",
        ];
        usize::try_from(status).ok().and_then(|status| NAMES.get(status)).copied().unwrap_or(c"no status")
    }
}

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: ForgeStatus,
    message: String,
}

impl Failure {
    pub(crate) fn new(status: ForgeStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// An error while the model is loaded: what else there is concerns texts.
    pub(crate) fn loading(error: &Error) -> Self {
        Self::new(ForgeStatus::Load, error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Tokenizer(_) => ForgeStatus::Tokenizer,
            Error::Template(_) | Error::RenderingsGivenUp { .. } | Error::NoTemplate | Error::Messages { .. } => {
                ForgeStatus::Template
            }
            Error::EmptyPrompt | Error::PromptTooLong { .. } | Error::TokenOutOfRange { .. } => ForgeStatus::Prompt,
            Error::Sampling { .. } => ForgeStatus::Argument,
            Error::Cancelled => ForgeStatus::Cancelled,
            _ => ForgeStatus::Generation,
        };
        Self::new(status, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The message of this thread's last call that did not return `Ok`.
pub(crate) fn last_message() -> *const c_char {
    // A thread that is ending has none any more.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs a function of the library: a failure becomes its status and this thread's message, and so does a panic, which must not unwind into C.
pub(crate) fn guard(work: impl FnOnce() -> Result<(), Failure>) -> ForgeStatus {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let words = payload.downcast_ref::<&str>().map(|words| (*words).to_owned());
        let words = words.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::new(ForgeStatus::Panic, format!("a fault of the library: {words}")))
    });
    let Err(Failure { status, message }) = result else { return ForgeStatus::Ok };
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    let _ = LAST.try_with(|last| last.replace(message));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> String {
        // SAFETY: this thread's message lives until its next failure.
        unsafe { CStr::from_ptr(last_message()) }.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn panics_do_not_pass() {
        assert_eq!(guard(|| Ok(())), ForgeStatus::Ok);
        assert_eq!(message(), "");
        assert_eq!(guard(|| panic!("of {}", 1)), ForgeStatus::Panic);
        assert_eq!(message(), "a fault of the library: of 1");
        assert_eq!(guard(|| std::panic::panic_any(7)), ForgeStatus::Panic);
        assert_eq!(message(), "a fault of the library: ");
        assert_eq!(guard(|| Err(Failure::new(ForgeStatus::Load, "a\0b"))), ForgeStatus::Load);
        assert_eq!(message(), "a b");
        // Other threads have messages of their own.
        std::thread::spawn(|| assert_eq!(message(), "")).join().expect("no panic");
    }

    #[test]
    fn every_status_has_a_name() {
        assert_eq!(ForgeStatus::name(ForgeStatus::Ok as i32), c"ok");
        assert_eq!(ForgeStatus::name(ForgeStatus::Panic as i32), c"fault of the library");
        assert_eq!([-1, ForgeStatus::Panic as i32 + 1, i32::MAX].map(ForgeStatus::name), [c"no status"; 3]);
    }
}
