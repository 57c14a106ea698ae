//! `pshim6ctl policy`: the operator's word on which providers carry what.

use std::io;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::{Output, VerbError};
use crate::config::{Configuration, Problem, Problems};
use crate::manage::api::{PolicyShareView, PolicyView, Request, Response};
use crate::manage::client::ClientError;
use crate::manage::table::Table;
use crate::policy::{Policy, PolicyFile, diff, file};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyVerb {
    /// Check a policy against the configuration; every fault is named with file, line and field. Needs no daemon.
    Check {
        /// Another one than the configured one.
        file: Option<PathBuf>,
    },
    /// Have the running box use a policy from now on: all of it or nothing. No packet is lost.
    Load {
        /// Becomes the configured policy file; without it that file is read again.
        file: Option<PathBuf>,
    },
    /// The policy the running box obeys, and how far the site is from what it wants.
    Show,
    /// Where a policy differs from the one the running box obeys.
    Diff {
        /// Another one than the configured one.
        file: Option<PathBuf>,
    },
    /// Print the JSON Schema of policies.
    Schema,
}

pub(super) fn run(config: &Path, verb: &PolicyVerb, output: &mut Output<'_>) -> Result<(), VerbError> {
    match verb {
        PolicyVerb::Check { file } => check(config, file.as_deref(), output),
        PolicyVerb::Load { file } => load(config, file.as_deref(), output),
        PolicyVerb::Show => {
            let view = ask(config, output)?;
            output.answer(&view, shown)
        }
        PolicyVerb::Diff { file } => differences(config, file.as_deref(), output),
        PolicyVerb::Schema => Ok(write!(output.out, "{}", file::schema())?),
    }
}

/// A policy file's text, and what it says.
struct Read {
    file: PathBuf,
    text: String,
    said: PolicyFile,
}

fn read(configuration: &Configuration, file: Option<&Path>) -> Result<Read, VerbError> {
    let file = file.unwrap_or(&configuration.site.node.policy_file);
    let text = crate::config::read_policy(file)?;
    let text = text.ok_or_else(|| Problems::from(Problem::of_file(file, "there is no such file")))?;
    let (_, said) = Policy::parse(file, &text, &configuration.site, &configuration.hosts)?;
    Ok(Read { file: file.to_path_buf(), text, said })
}

fn check(config: &Path, file: Option<&Path>, output: &mut Output<'_>) -> Result<(), VerbError> {
    #[derive(Serialize)]
    struct Good {
        good: bool,
        file: String,
        classes: usize,
    }
    let Read { file, said, .. } = read(&Configuration::load(config)?, file)?;
    let good = Good { good: true, file: file.display().to_string(), classes: said.classes.len() };
    output.answer(&good, |good| format!("{}: good; classes: {}\n", good.file, good.classes))
}

fn load(config: &Path, file: Option<&Path>, output: &mut Output<'_>) -> Result<(), VerbError> {
    let configuration = Configuration::load(config)?;
    let place = &configuration.site.node.policy_file;
    let before = crate::config::read_policy(place)?;
    if let Some(file) = file {
        let Read { text, .. } = read(&configuration, Some(file))?;
        write(place, &text)?;
    }
    match loaded(config, output) {
        Ok(view) => output.answer(&view, |view| {
            format!(
                "{}: in force; classes: {}, fields that are new or other: {}\n",
                view.file, view.classes, view.changed
            )
        }),
        // It may have been heard, so the file that may count is not taken away.
        Err(VerbError::Client(error @ (ClientError::Broken { .. } | ClientError::NotUnderstood { .. }))) => {
            Err(VerbError::Words(format!("{error}; whether {} is in force is not known", place.display())))
        }
        Err(error) => {
            // The daemon did not take it, so neither does the file.
            match (file, before) {
                (Some(_), Some(text)) => write(place, &text)?,
                (Some(_), None) => std::fs::remove_file(place)?,
                (None, _) => {}
            }
            Err(error)
        }
    }
}

fn loaded(config: &Path, output: &Output<'_>) -> Result<crate::manage::api::PolicyLoadedView, VerbError> {
    let mut client = output.client(config)?;
    match client.call(Request::PolicyLoad)? {
        Response::PolicyLoaded(view) => Ok(view),
        _ => Err(client.wrong_answer().into()),
    }
}

/// Puts a policy in the place of another, whole.
fn write(place: &Path, text: &str) -> io::Result<()> {
    let beside = place.with_extension("json.new");
    std::fs::write(&beside, text)?;
    std::fs::File::open(&beside)?.sync_all()?;
    std::fs::rename(beside, place)
}

fn ask(config: &Path, output: &Output<'_>) -> Result<PolicyView, VerbError> {
    let mut client = output.client(config)?;
    match client.call(Request::Policy)? {
        Response::Policy(view) => Ok(view),
        _ => Err(client.wrong_answer().into()),
    }
}

fn shown(view: &PolicyView) -> String {
    if !view.loaded {
        return "no policy; providers are used as site.toml prefers them\n".to_owned();
    }
    let mut table = Table::new(&["CLASS", "WAY", "PROVIDER", ">CONTEXTS", ">MBPS", ">TARGET"]);
    for class in &view.classes {
        for (way, shares) in [("out", &class.out), ("in", &class.inward)] {
            shares.iter().for_each(|share| table.row(row(&class.name, way, share)));
        }
    }
    let PolicyView { moves_ordered, moves_done, moves_failed, .. } = view;
    format!("{table}moves: {moves_ordered} ordered, {moves_done} done, {moves_failed} not\n")
}

fn row(class: &str, way: &str, share: &PolicyShareView) -> Vec<String> {
    let target = share.target_mbps.map_or_else(|| "-".to_owned(), |target| format!("{target:.2}"));
    let (provider, contexts) = (share.provider.clone(), share.contexts.to_string());
    vec![class.to_owned(), way.to_owned(), provider, contexts, format!("{:.2}", share.mbps), target]
}

fn differences(config: &Path, file: Option<&Path>, output: &mut Output<'_>) -> Result<(), VerbError> {
    #[derive(Serialize)]
    struct Difference {
        field: String,
        running: Option<String>,
        file: Option<String>,
    }
    let configuration = Configuration::load(config)?;
    let Read { said, .. } = read(&configuration, file)?;
    let running = ask(config, output)?;
    let running: PolicyFile = match running.loaded {
        true => serde_json::from_value(running.policy).map_err(|error| VerbError::Words(error.to_string()))?,
        false => PolicyFile::default(),
    };
    let all: Vec<Difference> =
        diff(&running, &said).into_iter().map(|(field, running, file)| Difference { field, running, file }).collect();
    output.answer(&all, |all| match all.is_empty() {
        true => "no difference\n".to_owned(),
        false => all.iter().map(|it| line(&it.field, it.running.as_deref(), it.file.as_deref())).collect(),
    })
}

fn line(field: &str, running: Option<&str>, file: Option<&str>) -> String {
    format!("{field}: {} -> {}\n", running.unwrap_or("-"), file.unwrap_or("-"))
}
