//! Handles: numbers dressed as pointers. They are looked up and never followed, and none is given out twice, so that one that was freed, or
//! was never one, is told from those that live.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failure::{Failure, ForgeStatus};

/// Bits below the number, of which none is set in a pointer to memory that an allocator gave.
const SHIFT: u32 = 4;

/// What lives of one kind.
pub(crate) struct Handles<T> {
    /// What errors call it.
    kind: &'static str,
    /// Its low bits.
    tag: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    given: usize,
    live: BTreeMap<usize, Arc<T>>,
}

impl<T> Handles<T> {
    pub(crate) const fn new(kind: &'static str, tag: usize) -> Self {
        Self { kind, tag, state: Mutex::new(State { given: 0, live: BTreeMap::new() }) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new handle.
    pub(crate) fn insert<H>(&self, value: T) -> *mut H {
        let mut state = self.state();
        state.given += 1;
        let number = state.given;
        state.live.insert(number, Arc::new(value));
        std::ptr::without_provenance_mut(number << SHIFT | self.tag)
    }

    /// What a handle stands for, which lives on as long as the caller holds it.
    pub(crate) fn get<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let state = self.state();
        let number = self.number(handle, &state)?;
        state.live.get(&number).cloned().ok_or_else(|| self.freed())
    }

    /// Ends a handle.
    pub(crate) fn remove<H>(&self, handle: *const H) -> Result<Arc<T>, Failure> {
        let mut state = self.state();
        let number = self.number(handle, &state)?;
        state.live.remove(&number).ok_or_else(|| self.freed())
    }

    fn number<H>(&self, handle: *const H, state: &State<T>) -> Result<usize, Failure> {
        let address = handle.addr();
        if address == 0 {
            return Err(Failure::new(ForgeStatus::Null, format!("the {} is a null pointer", self.kind)));
        }
        let number = address >> SHIFT;
        let was_given = address & ((1 << SHIFT) - 1) == self.tag && (1..=state.given).contains(&number);
        if was_given { Ok(number) } else { Err(self.failure("is none of this library's")) }
    }

    fn freed(&self) -> Failure {
        self.failure("was freed")
    }

    fn failure(&self, what: &str) -> Failure {
        Failure::new(ForgeStatus::Handle, format!("the {} {what}", self.kind))
    }
}
