//! Looks after a P-SHIM6 box. Everything is in `control::manage::verbs`.
#![forbid(unsafe_code)]

use std::io::{BufWriter, stderr, stdout};
use std::process::ExitCode;

use clap::Parser;
use control::manage::verbs::{Cli, run};

fn main() -> ExitCode {
    control::driver::name_damaged_stores();
    let cli = Cli::parse();
    run(&cli, control::tape::tell, &mut BufWriter::new(stdout().lock()), &mut stderr().lock())
}
