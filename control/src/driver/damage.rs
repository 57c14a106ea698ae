//! What is said when the store's library gives up.

use std::panic;
use std::process;

use crate::store::being_read;

/// From now on a panic over a store that is being read, which only damage can lead to, ends the program with the name of the file, what to
/// do, and the exit code of any store that cannot be read.
pub fn name_damaged_stores() {
    let others = panic::take_hook();
    panic::set_hook(Box::new(move |what| {
        let Some(file) = being_read() else { return others(what) };
        let file = file.display();
        eprintln!(
            "{file}: damaged, cannot be read; put a copy in its place, or move it away to begin without leases ({what})"
        );
        process::exit(1);
    }));
}
