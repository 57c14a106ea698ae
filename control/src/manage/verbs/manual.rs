//! What is made of the command line itself: completion for shells, and manual pages.

use std::fs;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Output, VerbError};

/// What a shell has to know to complete commands.
pub(super) fn completion(shell: Shell, output: &mut Output<'_>) -> Result<(), VerbError> {
    // The generator does not say when it cannot write; so it writes to memory.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pshim6ctl", &mut text);
    Ok(output.out.write_all(&text)?)
}

/// Manual pages in `directory`: one for the program and one for each of its commands.
pub(super) fn man(directory: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)?;
    let count = fs::read_dir(directory)?.count();
    output.note(format!("{}: {count} pages", directory.display()))
}
