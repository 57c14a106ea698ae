//! Whether a machine is fit for a box: what is wrong, what is odd, and the command that mends it.
//!
//! Reads what the kernel says of itself below `/sys`, `/proc`, `/dev` and `/run`, changes nothing, and needs no daemon. The
//! root of these is an argument, so that machines can be made up. A file that is not there says nothing, and never stops the
//! examination.

mod cpu;
mod devices;
mod files;
mod memory;
mod network;
#[cfg(test)]
mod tests;
mod tree;

use std::path::Path;

use serde::Serialize;

use crate::config::Site;

pub use tree::Tree;

/// How serious a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The box runs, and something should be known.
    Warn,
    /// The box does not start, or does not do its work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub topic: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// In a sentence without a full stop.
    pub text: String,
    /// The command that mends it, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
    /// Where none does: the command that shows more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub look: Option<String>,
}

impl Finding {
    /// All is well.
    pub fn ok(topic: &'static str, text: impl Into<String>) -> Finding {
        Finding { topic, verdict: Verdict::Ok, text: text.into(), mend: None, look: None }
    }

    /// Something should be known.
    pub fn warn(topic: &'static str, text: impl Into<String>) -> Finding {
        Finding { topic, verdict: Verdict::Warn, text: text.into(), mend: None, look: None }
    }

    /// Something is wrong.
    pub fn fail(topic: &'static str, text: impl Into<String>) -> Finding {
        Finding { topic, verdict: Verdict::Fail, text: text.into(), mend: None, look: None }
    }

    /// The command that mends it.
    #[must_use]
    pub fn mend(self, command: impl Into<String>) -> Finding {
        Finding { mend: Some(command.into()), ..self }
    }

    /// The command that shows more.
    #[must_use]
    pub fn look(self, command: impl Into<String>) -> Finding {
        Finding { look: Some(command.into()), ..self }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The worst verdict.
    pub verdict: Verdict,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Of these findings.
    pub fn of(findings: Vec<Finding>) -> Report {
        let verdict = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
        Report { verdict, findings }
    }
}

/// Who the daemon is, as far as files are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name, for commands.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The name of its own group, for commands.
    pub group: String,
    /// The groups it is in.
    pub groups: Vec<u32>,
}

/// What is known beforehand of the machine that is looked at.
pub struct Patient<'a> {
    /// What its kernel says of it.
    pub tree: &'a Tree,
    /// Where the configuration is.
    pub config: &'a Path,
    /// What it is to be.
    pub site: &'a Site,
    /// The daemon runs already, so that what it holds is not missed.
    pub running: bool,
    /// Whom it runs as.
    pub daemon: &'a Account,
    /// What `ethtool -k` says of an interface; the kernel has no file for it.
    pub features: &'a dyn Fn(&str) -> Option<String>,
}

/// Looks at everything the kernel and the file system tell of a machine.
pub fn examine(patient: &Patient<'_>) -> Vec<Finding> {
    let Patient { tree, config, site, running, daemon, features } = *patient;
    let mut findings = Vec::new();
    findings.extend(files::readable(config, site, daemon));
    findings.extend(files::secrets(config, site, daemon));
    findings.extend(files::store(site, daemon));
    findings.push(memory::hugepages(tree, site, running));
    findings.push(memory::ordinary(patient));
    findings.extend(devices::functions(tree, site));
    findings.extend(devices::interfaces(tree, site, features));
    findings.extend(network::mtus(config, site));
    findings.extend(network::kernel(tree, site));
    findings.extend(cpu::cores(tree, config, site));
    findings.push(network::clock(tree, site));
    findings
}

/// The command that sets a field of the configuration, be it there already or not; `section` is its heading. The daemon has to hear
/// of it by `then`.
fn set(config: &Path, section: &str, field: &str, value: &str, then: &str) -> String {
    format!(r"sed -i '/^{field} *=/d; s/^\[{section}\].*/&\n{field} = {value}/' {} && {then}", config.display())
}

/// How a daemon hears of what a reload takes over.
const RELOAD: &str = "pshim6ctl reload";
/// How it hears of the rest.
const RESTART: &str = "systemctl restart pshim6";
