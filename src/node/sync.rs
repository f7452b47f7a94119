//! A mutex for short critical sections that never panic.

use std::sync::{MutexGuard, PoisonError};

/// [`std::sync::Mutex`] whose lock is simply taken: no holder leaves the data half changed.
#[derive(Debug, Default)]
pub(super) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
