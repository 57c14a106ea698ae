//! Commands on standard input, answers on standard output: one line each, the answers in JSON.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::Value;

/// Lines of standard input as they come; the channel ends with the input.
pub fn lines() -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Prints an answer.
pub fn answer(value: &Value) {
    let mut out = io::stdout().lock();
    // Whoever asked and closed the pipe does not want to know.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}
