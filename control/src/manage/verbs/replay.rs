//! Recordings of a box: have one made, and tell an engine again what is on it.
//!
//! The engine itself is not this room's to know: whoever makes the program hands in who [replays](Replayer).

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::{Output, VerbError, show, upgrade};
use crate::manage::api::Response;
use crate::manage::api::{
    ContextsView, CountersView, HostsView, PathsView, ProviderView, RecordRequest, RecordingView, Request,
};

/// What can be asked about the recording of a running box.
#[derive(Debug, Subcommand)]
pub(super) enum RecordVerb {
    /// Have the program start anew, recorded from its beginning, and take the running one's place; sessions go on.
    ///
    /// As `upgrade` does it, so all that this carries over stays, and the recording begins with it.
    Start {
        /// Where: an absolute path of a file that does not exist, on the box's machine.
        file: String,
        /// Octets it may have, in millions.
        #[arg(long)]
        megabytes: Option<u32>,
    },
    /// Whether the box is recorded, where, and how much there is.
    Status,
    /// Record no longer; the file is complete then.
    Stop,
}

/// What to do with a recording.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// What `pshim6d --record` wrote.
    pub file: PathBuf,
    /// Tell nothing of the time before this, in seconds on the box's clock.
    #[arg(long, value_name = "SECONDS")]
    pub since: Option<f64>,
    /// Stop at this time.
    #[arg(long, value_name = "SECONDS")]
    pub until: Option<f64>,
    /// Stop after the input with this number.
    #[arg(long, value_name = "INPUT")]
    pub stop: Option<u64>,
    /// Tell what the box was told, too.
    #[arg(long)]
    pub inputs: bool,
    /// Which effects to tell: stories, unless said otherwise; `all`, or some of answer, lose, install, remove, replay, refuse,
    /// transmit, transmit-by, plain, publish, story, system.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub effects: Vec<String>,
    /// Only what has to do with this address, or with the context of this tag.
    #[arg(long, value_name = "ADDRESS|TAG")]
    pub about: Option<String>,
    /// Effects that need not be as they were recorded, by the same names.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub ignore: Vec<String>,
    /// Go on where the box decides otherwise than it did, and tell of each such place.
    #[arg(long)]
    pub keep_going: bool,
    /// What to show of the box at the end.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub show: Vec<Look>,
}

/// A view of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Look {
    /// Its contexts.
    Contexts,
    /// What it knows of paths.
    Paths,
    /// Counters of the control core.
    Counters,
    /// Providers.
    Providers,
    /// Hosts.
    Hosts,
}

/// Something a replay says.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayLine {
    /// First: what is replayed.
    Recording {
        /// The version of the program that recorded.
        version: String,
        /// The box's name.
        name: String,
        /// Seconds on its clock when the recording began.
        at_s: f64,
        /// Seconds since 1970 then.
        unix: u64,
    },
    /// The box was told something.
    Input {
        /// The input's number.
        number: u64,
        /// Seconds on its clock.
        at_s: f64,
        /// What kind of.
        kind: &'static str,
        /// What.
        text: String,
    },
    /// It wants something done.
    Effect {
        /// The number of the input that this follows from.
        number: u64,
        /// Seconds on its clock.
        at_s: f64,
        /// What kind of.
        kind: &'static str,
        /// What.
        text: String,
    },
    /// It decides otherwise than it did.
    Difference {
        /// The number of the input that this follows from.
        number: u64,
        /// Seconds on its clock.
        at_s: f64,
        /// What it was told.
        input: String,
        /// In what it differs.
        text: String,
        /// What it wants now in the place of the first effect that differs, if anything.
        now: Option<String>,
    },
    /// Last but for what is shown.
    End {
        /// How much it was told.
        inputs: u64,
        /// Seconds on its clock.
        at_s: f64,
        /// How often it decided otherwise.
        differences: u64,
        /// How the recording ends, or that the replay was to stop before.
        text: String,
    },
    /// Its contexts at the end.
    Contexts(ContextsView),
    /// What it knows of paths then.
    Paths(PathsView),
    /// Its counters then.
    Counters(CountersView),
    /// Its providers then.
    Providers(Vec<ProviderView>),
    /// Its hosts then.
    Hosts(HostsView),
}

/// Hears of lines as they come.
pub type Say<'a> = &'a mut dyn FnMut(ReplayLine) -> io::Result<()>;

/// Replays a recording. False if it is not decided as it was, or cannot be read to its end.
pub type Replayer = fn(&[u8], &ReplayArgs, Say<'_>) -> Result<bool, VerbError>;

pub(super) fn replay(asked: &ReplayArgs, replayer: Replayer, output: &mut Output<'_>) -> Result<(), VerbError> {
    let wrong = |error: io::Error| VerbError::Words(format!("{}: {error}", asked.file.display()));
    let octets = std::fs::read(&asked.file).map_err(wrong)?;
    let json = output.json;
    let mut say = |line: ReplayLine| match json {
        true => writeln!(output.out, "{}", serde_json::to_string(&line).map_err(io::Error::from)?),
        false => write!(output.out, "{}", text(&line)),
    };
    if replayer(&octets, asked, &mut say)? { Ok(()) } else { Err(VerbError::Said) }
}

fn text(line: &ReplayLine) -> String {
    match line {
        ReplayLine::Recording { version, name, at_s, unix } => {
            format!("{name}, recorded by version {version} from {at_s:.6} s on, {unix} s after 1970\n")
        }
        ReplayLine::Input { number, at_s, kind, text } => format!("{at_s:14.6} {number:>8} > {kind} {text}\n"),
        ReplayLine::Effect { number, at_s, kind, text } => format!("{at_s:14.6} {number:>8}   {kind} {text}\n"),
        ReplayLine::Difference { number, at_s, input, text, now } => {
            let now = now.as_ref().map(|now| format!("\n{:26}now: {now}", "")).unwrap_or_default();
            format!("{at_s:14.6} {number:>8} ! not as recorded: {text}\n{:26}told: {input}{now}\n", "")
        }
        ReplayLine::End { inputs, at_s, differences, text } => {
            let same = match differences {
                0 => "all decided as recorded".to_owned(),
                count => format!("{count} decided otherwise than recorded"),
            };
            format!("{inputs} inputs, to {at_s:.6} s: {same}; {text}\n")
        }
        ReplayLine::Contexts(view) => show::contexts_text(view),
        ReplayLine::Paths(view) => show::paths_text(view),
        ReplayLine::Counters(view) => show::counters_text(view, false),
        ReplayLine::Hosts(view) => show::hosts_text(view),
        ReplayLine::Providers(views) => show::providers_table(views).to_string(),
    }
}

pub(super) fn record(config: &Path, verb: &RecordVerb, output: &mut Output<'_>) -> Result<(), VerbError> {
    let request = match verb {
        RecordVerb::Start { file, megabytes } => {
            let wanted = RecordRequest { file: file.clone(), megabytes: *megabytes };
            return upgrade::run(config, Request::RecordStart(wanted), output);
        }
        RecordVerb::Status => Request::Recording,
        RecordVerb::Stop => Request::RecordStop,
    };
    let mut client = output.client(config)?;
    let view = match client.call(request)? {
        Response::Recording(view) | Response::RecordStopped(view) => view,
        _ => return Err(client.wrong_answer().into()),
    };
    output.answer(&view, recording_text)
}

fn recording_text(view: &RecordingView) -> String {
    let Some(file) = &view.file else { return "not recorded\n".to_owned() };
    let size = format!("{} of {} octets", view.octets, view.octets_max);
    match &view.ended {
        None => format!("recorded to {file}: {size}\n"),
        Some(reason) => format!("recorded to {file}, until {reason}: {size}\n"),
    }
}
