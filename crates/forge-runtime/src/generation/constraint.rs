//! What holds the tokens of a sequence to a form, as structured output does.

use std::fmt::Debug;

use super::super::Result;

/// The state of a form: which tokens may come next.
pub trait Constraint: Debug + Send {
    /// Says which tokens may come next, a bit each, lowest first, in `[vocab / 32]` words, rounded up; what they hold before does not count.
    ///
    /// # Errors
    /// [`Error::Constraint`](super::super::Error::Constraint) where that takes too much.
    fn allow(&mut self, allowed: &mut [u32]) -> Result<()>;

    /// Tokens that come next one after the other, as far as that is known: of each of them [`Constraint::allow`] would say that it is the only one.
    fn forced(&mut self) -> &[u32] {
        &[]
    }

    /// Takes the next token, which is no end token. Says whether the form is whole, and nothing may follow.
    ///
    /// # Errors
    /// [`Error::Constraint`](super::super::Error::Constraint) for a token that may not come.
    fn take(&mut self, token: u32) -> Result<bool>;

    /// Another of the same state.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.fork()
    }
}
