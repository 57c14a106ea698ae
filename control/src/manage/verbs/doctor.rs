//! `pshim6ctl doctor`: whether this machine and this configuration make a box that serves.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use nix::unistd::Group;

use super::{Output, VerbError, account};
use crate::config::site::{Device, Hugepages};
use crate::config::{Configuration, Problems, Site};
use crate::doctor::{Account, Finding, Patient, Report, Tree, Verdict, examine};
use crate::manage::api::{Request, Response, StatusView};
use crate::manage::client::{Client, ClientError};
use crate::policy::Policy;

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// Account the daemon runs as [default: pshim6 if there is one, else whoever asks].
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Where the machine's /sys, /proc, /dev and /run are.
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    root: PathBuf,
}

pub(super) fn run(config: &Path, arguments: &DoctorArgs, output: &mut Output<'_>) -> Result<(), VerbError> {
    let mut findings = Vec::new();
    if let Some(site) = configuration(config, &mut findings) {
        let account = account::of_daemon(arguments.user.as_deref())?;
        groups(&site, &account, &mut findings);
        let status = daemon(&site, output.socket, &mut findings);
        let (tree, running) = (&Tree::new(&arguments.root), status.is_some());
        findings.extend(examine(&Patient {
            tree,
            config,
            site: &site,
            running,
            daemon: &account,
            features: &features,
        }));
        members(&site, &mut findings);
        if let Some(status) = status {
            on_duty(&site, &status, &mut findings);
        }
    }
    let report = Report::of(findings);
    output.answer(&report, text)?;
    match report.verdict {
        Verdict::Ok | Verdict::Warn => Ok(()),
        Verdict::Fail => Err(VerbError::Said),
    }
}

/// Whether the files can be obeyed. Faults of the hosts file or the policy do not keep us from looking at the machine.
fn configuration(config: &Path, findings: &mut Vec<Finding>) -> Option<Site> {
    let topic = "configuration";
    let check = format!("pshim6ctl --config {} check", config.display());
    let loaded = Configuration::load(config);
    let loaded = loaded.and_then(|configuration| Policy::of(&configuration).map(|_| configuration));
    match loaded {
        Ok(configuration) => {
            let hosts = configuration.hosts.len();
            findings.push(Finding::ok(topic, format!("{}: good; hosts: {hosts}", config.display())));
            let warnings = configuration.warnings.iter();
            findings.extend(warnings.map(|warning| Finding::warn(topic, warning.to_string())));
            Some(configuration.site)
        }
        Err(Problems(problems)) => {
            findings.extend(problems.iter().map(|it| Finding::fail(topic, it.to_string()).look(check.clone())));
            Site::load(config).ok().map(|(site, _)| site)
        }
    }
}

/// What `ethtool -k` says of an interface, if there is such a program.
fn features(interface: &str) -> Option<String> {
    let said = Command::new("ethtool").args(["-k", interface]).output().ok()?;
    Some(String::from_utf8_lossy(&said.stdout).into_owned())
}

/// Groups of the sockets: the daemon starts if they exist and it is in them.
fn groups(site: &Site, daemon: &Account, findings: &mut Vec<Finding>) {
    let read = site.manage.read.as_ref().and_then(|read| read.group.as_ref());
    for name in site.manage.group.iter().chain(read).filter(|name| name.parse::<u32>().is_err()) {
        let user = &daemon.name;
        match Group::from_name(name).ok().flatten() {
            None => {
                let text = format!("[manage] names group {name}, which does not exist");
                let command = format!("groupadd --system {name} && usermod -aG {name} {user}");
                findings.push(Finding::fail("socket", text).mend(command));
            }
            Some(group) if daemon.uid != 0 && !daemon.groups.contains(&group.gid.as_raw()) => {
                let text = format!("[manage] names group {name}, which {user} is not in");
                findings.push(Finding::fail("socket", text).mend(format!("usermod -aG {name} {user}")));
            }
            Some(_) => {}
        }
    }
}

/// What the daemon says of itself, if one answers.
fn daemon(site: &Site, socket: Option<&Path>, findings: &mut Vec<Finding>) -> Option<StatusView> {
    let topic = "socket";
    let asked = socket.map_or_else(|| Client::reach(site), Client::connect).and_then(|mut client| {
        match client.call(Request::Status)? {
            Response::Status(status) => Ok(status),
            _ => Err(client.wrong_answer()),
        }
    });
    match asked {
        Ok(status) => {
            findings.push(Finding::ok(topic, format!("pshim6d {} answers, up {} s", status.version, status.uptime_s)));
            Some(status)
        }
        Err(error @ ClientError::NotRunning { .. }) => {
            findings.push(Finding::warn(topic, error.to_string()).mend("systemctl start pshim6"));
            None
        }
        Err(error @ ClientError::NoAccess { .. }) => {
            let group = site.manage.group.as_deref().unwrap_or("pshim6");
            findings.push(
                Finding::fail(topic, error.to_string()).mend(format!("usermod -aG {group} $USER && newgrp {group}")),
            );
            None
        }
        Err(error) => {
            findings.push(Finding::fail(topic, error.to_string()).look("journalctl -u pshim6 -n 50"));
            None
        }
    }
}

/// The store that boxes share: each member of its cluster is asked. One may be silent, as long as most of them answer.
fn members(site: &Site, findings: &mut Vec<Finding>) {
    let Some(cluster) = &site.cluster else { return };
    let topic = "store";
    let mut silent = 0;
    for (endpoint, answer) in super::store::members(cluster) {
        match answer {
            Ok(()) => findings.push(Finding::ok(topic, format!("{endpoint} answers"))),
            Err(error) => {
                silent += 1;
                findings.push(Finding::warn(topic, error));
            }
        }
    }
    if silent * 2 >= cluster.endpoints.len() {
        let text = "most of the store's members do not answer: new clients get only what is reserved for this box";
        findings.push(Finding::fail(topic, text).look("pshim6ctl store check"));
    }
}

/// What only a running box knows: whether its links are up and the next hops answer.
fn on_duty(site: &Site, status: &StatusView, findings: &mut Vec<Finding>) {
    let interface = |name: &str| {
        let port = site.ports.iter().find(|port| port.name == name)?;
        let Device::Virtual(text) = &port.device else { return None };
        text.split(',').find_map(|part| part.strip_prefix("iface="))
    };
    // What the kernel has an interface for was looked at already.
    for port in status.ports.iter().filter(|port| !port.link_up && interface(&port.name).is_none()) {
        findings.push(Finding::warn("link", format!("port {} is down: look at the cable", port.name)));
    }
    for provider in status.providers.iter().filter(|provider| !provider.leaving) {
        let router = provider.next_hop.map_or_else(|| "no router".to_owned(), |router| format!("router {router}"));
        let text = format!("provider {}: {router}", provider.name);
        if provider.up && provider.next_hop_resolved {
            findings.push(Finding::ok("next hop", format!("{text} answers")));
            continue;
        }
        // One of several may be down without the box being ill; all of them may not.
        let text = format!("{text} does not answer on port {}", provider.port);
        let finding = if status.ready { Finding::warn("next hop", text) } else { Finding::fail("next hop", text) };
        findings.push(match interface(&provider.port) {
            Some(interface) => finding.look(format!("tcpdump -c 4 -ni {interface} icmp6")),
            None => finding,
        });
    }
    if let Some(alone) = status.store.as_ref().and_then(|store| store.alone.as_ref()) {
        findings.push(Finding::warn("store", format!("the daemon does not reach the other boxes' store: {alone}")));
    }
    if let Some(rival) = status.store.as_ref().and_then(|store| store.name_taken.as_ref()) {
        findings.push(Finding::fail("store", rival.clone()));
    }
    let shared = status.store.iter().flat_map(|store| &store.shared);
    for it in shared.filter(|it| it.refused) {
        let text = format!("version {} of the {} file, of box {}, cannot be obeyed here", it.version, it.name, it.by);
        findings.push(Finding::warn("store", text).look("journalctl -u pshim6 -n 50"));
    }
    if site.eal.hugepages == Hugepages::Auto && !status.memory.hugepages {
        let text = "the daemon runs on ordinary memory: reserve hugepages, then restart it";
        findings.push(Finding::warn("hugepages", text).mend("systemctl restart pshim6"));
    }
}

fn text(report: &Report) -> String {
    let word = |verdict| match verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "FAIL",
    };
    let width = report.findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    let line = |finding: &Finding| {
        let first = format!("{}  {:width$}  {}\n", word(finding.verdict), finding.topic, finding.text);
        let command = |word: &str, command: &str| format!("      {:width$}  {word}: {command}\n", "");
        let mend = finding.mend.as_ref().map(|it| command("mend", it));
        first + &mend.or_else(|| finding.look.as_ref().map(|it| command("look", it))).unwrap_or_default()
    };
    let count = |verdict| report.findings.iter().filter(|finding| finding.verdict == verdict).count();
    let sum =
        format!("{} good, {} to know, {} to mend\n", count(Verdict::Ok), count(Verdict::Warn), count(Verdict::Fail));
    report.findings.iter().map(line).collect::<String>() + &sum
}
