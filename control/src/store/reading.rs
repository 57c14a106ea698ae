//! Whose damage it is when the library that reads a store gives up.
//!
//! It checks pages by their sums where it looks at them, and panics where one that it did not check contradicts itself. So it is noted
//! which thread reads what, for whoever has to say why a program ends.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

thread_local! {
    static READ: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// While it is there, this thread reads a store.
pub(super) struct Reading {
    before: Option<PathBuf>,
}

impl Reading {
    pub(super) fn of(file: &Path) -> Reading {
        Reading { before: READ.replace(Some(file.to_path_buf())) }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        READ.set(self.before.take());
    }
}

/// The store this thread reads now.
pub fn being_read() -> Option<PathBuf> {
    READ.with_borrow(Option::clone)
}
