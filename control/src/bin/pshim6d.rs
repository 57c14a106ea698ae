//! The box: reads its configuration, starts its log and hands both to `control::driver`, which runs it.
#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use clap::{Parser, ValueEnum};
use control::config::{Configuration, DEFAULT_PATH};
use control::driver::{MEGABYTES, RunError, Supervisor, Surroundings, name_damaged_stores};
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, reload};

/// Runs Shim6 for the hosts of a site.
///
/// Looks at its configuration, starts DPDK and serves until it is told to stop (SIGTERM, SIGINT). `pshim6ctl` shows
/// what it is doing.
#[derive(Debug, Parser)]
#[command(name = "pshim6d", version)]
struct Cli {
    /// The site's configuration.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// What to log, as `info,control::reap=debug`; wins over the configuration.
    #[arg(long, value_name = "FILTER", value_parser = log_filter)]
    log: Option<String>,
    /// Run on ordinary memory, whatever the configuration says of hugepages.
    #[arg(long)]
    no_hugepages: bool,
    /// Take the place of the daemon that runs with this configuration, if one does: sessions go on.
    #[arg(long)]
    take_over: bool,
    /// Record everything the control core is told, from the first moment, for `pshim6ctl replay`. The file holds keys and
    /// packets: whoever has it can do harm. One that is there is kept as FILE.old.
    #[arg(long, value_name = "FILE", overrides_with = "record")]
    record: Option<PathBuf>,
    /// Octets the recording may have, in millions; then it ends, and the box goes on.
    #[arg(long, value_name = "N", default_value_t = MEGABYTES, overrides_with = "record_megabytes",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    record_megabytes: u32,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn main() -> ExitCode {
    name_damaged_stores();
    let cli = Cli::parse();
    let configuration = match Configuration::load(&cli.config) {
        Ok(configuration) => configuration,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::FAILURE;
        }
    };
    // Either was checked where it was read, so nothing in it is passed over here.
    let filter = EnvFilter::new(cli.log.as_ref().unwrap_or(&configuration.site.node.log));
    // Lines wait in a bounded queue for a thread of their own: a stalled reader of our log must not stall the box.
    let (writer, flushed_at_the_end) = tracing_appender::non_blocking(io::stderr());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(io::stderr().is_terminal());
    let (filter, handle) = reload::Layer::new(filter);
    let lines = match cli.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).init();
    for warning in &configuration.warnings {
        warn!("{warning}");
    }
    info!(box_name = configuration.site.node.name, version = env!("CARGO_PKG_VERSION"), "starting");
    let said = cli.log.is_some();
    let log = move |filter: &str| {
        // What the command line says wins for as long as the process lives.
        if !said && let Err(reason) = handle.reload(EnvFilter::new(filter)) {
            warn!(%reason, "the log goes on as before");
        }
    };
    let surroundings = Surroundings {
        supervisor: supervisor(),
        ordinary_memory: cli.no_hugepages,
        take_over: cli.take_over,
        record: cli.record.map(|file| (file, u64::from(cli.record_megabytes) * 1_000_000)),
        start_successor: Box::new(start_successor),
        log: Box::new(log),
    };
    match control::driver::run(configuration, surroundings) {
        Ok(()) => {
            info!("stopped");
            ExitCode::SUCCESS
        }
        Err(RunError::HugepagesTaken(reason)) => {
            // DPDK starts once in the life of a process, so the second attempt needs another one.
            warn!("{reason}; starting again on ordinary memory");
            drop(flushed_at_the_end);
            start_again(|arguments| arguments.push("--no-hugepages".into()))
        }
        Err(error @ RunError::NotSucceeded) => {
            // Its devices and tables are gone, and sessions come back as after a crash.
            error!("{error}; starting again");
            drop(flushed_at_the_end);
            start_again(|arguments| arguments.retain(|argument| argument != "--take-over"))
        }
        Err(error) => {
            error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A process beside this one that takes its place. It is found by the name this one was started by, so that it is the program
/// that lies there now.
fn start_successor(record: Option<&(PathBuf, u64)>) -> io::Result<Child> {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    let program = if arguments.is_empty() { "pshim6d".into() } else { arguments.remove(0) };
    arguments.retain(|argument| argument != "--take-over");
    // What is said later counts.
    if let Some((file, octets)) = record {
        let most = (octets / 1_000_000).to_string();
        arguments.extend(["--record".into(), file.into(), "--record-megabytes".into(), most.into()]);
    }
    // The service manager's watchdog is for whoever is the box.
    Command::new(program).args(arguments).arg("--take-over").env_remove("WATCHDOG_PID").stdin(Stdio::null()).spawn()
}

/// Another process in place of this one, with other arguments.
fn start_again(change: impl FnOnce(&mut Vec<OsString>)) -> ExitCode {
    let mut arguments: Vec<OsString> = env::args_os().collect();
    let program = if arguments.is_empty() { "pshim6d".into() } else { arguments.remove(0) };
    change(&mut arguments);
    let error = Command::new(program).args(arguments).exec();
    // The log was flushed for good.
    eprintln!("cannot start again: {error}");
    ExitCode::FAILURE
}

/// Whoever started us, if it wants to know how we are (sd_notify(3), sd_watchdog_enabled(3)).
fn supervisor() -> Supervisor {
    // A watchdog that waits for another process is none of ours.
    let ours = env::var("WATCHDOG_PID").map_or(true, |text| text == std::process::id().to_string());
    let watchdog = env::var("WATCHDOG_USEC").ok().filter(|_| ours);
    Supervisor::reach(env::var_os("NOTIFY_SOCKET").as_deref(), watchdog.as_deref())
}

fn log_filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_string())
}
