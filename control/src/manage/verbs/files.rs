//! Commands on the operator's files.

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;

use super::records::{Record, is_relative, records};
use super::{Output, VerbError, account};
use crate::config::hosts::{Edit, EditError, Updated};
use crate::config::key;
use crate::config::{Configuration, Host, Hosts, Problem, Problems, Site};
use crate::identity::{Kind, Sec, SigningKey};
use crate::manage::api::{HostView, HostsView, Request, Response};
use crate::manage::client::{Client, ClientError};
use crate::manage::table::Table;
use crate::policy::Policy;

/// The answer of `check`.
#[derive(Serialize)]
struct CheckView {
    good: bool,
    errors: Vec<ProblemView>,
    warnings: Vec<ProblemView>,
}

#[derive(Serialize)]
struct ProblemView {
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    field: String,
    text: String,
}

impl From<&Problem> for ProblemView {
    fn from(problem: &Problem) -> ProblemView {
        ProblemView {
            file: problem.file.display().to_string(),
            line: problem.place.map(|place| place.line),
            column: problem.place.map(|place| place.column),
            field: problem.field.clone(),
            text: problem.text.clone(),
        }
    }
}

pub(super) fn check(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let loaded = Configuration::load(config);
    let loaded = loaded.and_then(|configuration| Policy::of(&configuration).map(|_| configuration));
    if output.json {
        let (errors, warnings) = match &loaded {
            Ok(configuration) => (&[][..], &configuration.warnings[..]),
            Err(Problems(problems)) => (&problems[..], &[][..]),
        };
        let views = |problems: &[Problem]| problems.iter().map(ProblemView::from).collect();
        let view = CheckView { good: errors.is_empty(), errors: views(errors), warnings: views(warnings) };
        output.answer(&view, |_| String::new())?;
        return loaded.map(drop).map_err(|_| VerbError::Said);
    }
    let configuration = loaded?;
    for warning in &configuration.warnings {
        output.note(format_args!("warning: {warning}"))?;
    }
    let site = &configuration.site;
    let (ports, providers) = (site.ports.len(), site.providers.len() + site.uplinks.len());
    let (peers, hosts) = (site.peers.len(), configuration.hosts.len());
    let config = config.display();
    writeln!(
        output.out,
        "{config}: good; ports: {ports}, providers: {providers}, hosts: {hosts}, static peers: {peers}"
    )?;
    Ok(())
}

/// What `host add` is asked for.
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) replace: bool,
    pub(super) make_key: bool,
    pub(super) domain: Option<&'a str>,
}

/// The answer of `host add` and, without what was done, of `host records`.
#[derive(Serialize)]
struct MadeView {
    #[serde(flatten)]
    host: HostView,
    records: Vec<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    daemon_reloaded: Option<bool>,
}

pub(super) fn host_add(config: &Path, wanted: &Wanted<'_>, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let key = site_key(&site, wanted.make_key, output)?;
    let mut edit = Edit::begin(&site.node.hosts_file)?;
    let mut progress = progress(site.sec);
    let host = edit.add(wanted.name, wanted.replace, &site, key.as_ref(), &mut rand::rng(), &mut progress)?;
    edit.save()?;
    let reloaded = reload(&site, output);
    let view = MadeView {
        host: host_view(&host),
        records: records(&host, site.ulid_kind(), wanted.domain),
        daemon_reloaded: Some(matches!(reloaded, Ok(true))),
    };
    output.answer(&view, |view| {
        let mut table = Table::new(&["ADDRESS", "OF"]);
        table.row([host.identity.ulid.to_string(), "the host itself (ULID)".into()]);
        for (locator, provider) in host.identity.locators.iter().zip(&site.providers) {
            table.row([locator.to_string(), format!("{} (locator)", provider.name)]);
        }
        let mut text =
            format!("{}: {}, Sec {}\n{table}\nDNS records to publish:\n", host.name, view.host.kind, site.sec);
        for record in &view.records {
            text += &format!("{record}\n");
        }
        text
    })?;
    if is_relative(wanted.name, wanted.domain) && !output.json {
        output.note("names are relative to your zone; --domain completes them (the PTR needs it)")?;
    }
    reloaded.map(drop)
}

pub(super) fn host_remove(config: &Path, name: &str, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let mut edit = Edit::begin(&site.node.hosts_file)?;
    let entry = edit.remove(name)?;
    edit.save()?;
    let reloaded = reload(&site, output);
    let view = serde_json::json!({ "removed": entry.name, "ulid": entry.ulid, "daemon_reloaded": matches!(reloaded, Ok(true)) });
    output.answer(&view, |_| format!("{}: removed ({})\n", entry.name, entry.ulid))?;
    reloaded.map(drop)
}

pub(super) fn host_update(config: &Path, name: Option<&str>, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let key = site.key.as_deref().filter(|file| file.exists()).map(key::load).transpose()?;
    let mut edit = Edit::begin(&site.node.hosts_file)?;
    let updated = edit.update(name, &site, key.as_ref(), &mut rand::rng())?;
    edit.save()?;
    let reloaded = reload(&site, output);
    let view = serde_json::json!({ "hosts": updated_views(&updated), "daemon_reloaded": matches!(reloaded, Ok(true)) });
    output.answer(&view, |_| updated_table(&updated))?;
    reloaded.map(drop)
}

/// What changed for each host, for programs.
pub(super) fn updated_views(updated: &[Updated]) -> Vec<serde_json::Value> {
    let view = |it: &Updated| {
        let Updated { name, added, removed, without } = it;
        serde_json::json!({ "name": name, "added": added, "removed": removed, "without": without })
    };
    updated.iter().map(view).collect()
}

/// The same for people.
pub(super) fn updated_table(updated: &[Updated]) -> String {
    let joined = |addresses: &[std::net::Ipv6Addr]| {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        addresses.join(" ")
    };
    let mut table = Table::new(&["NAME", "NEW", "GONE", "NONE FROM"]);
    for it in updated {
        table.row([it.name.clone(), joined(&it.added), joined(&it.removed), it.without.join(" ")]);
    }
    table.to_string()
}

pub(super) fn host_list(config: &Path, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (_, hosts) = hosts(config)?;
    let view = HostsView { hosts: hosts.iter().map(host_view).collect(), ..HostsView::default() };
    output.answer(&view, |view| hosts_table(&view.hosts))
}

pub(super) fn host_records(
    config: &Path,
    name: Option<&str>,
    domain: Option<&str>,
    output: &mut Output<'_>,
) -> Result<(), VerbError> {
    let (site, hosts) = hosts(config)?;
    let chosen: Vec<&Host> = hosts.iter().filter(|host| name.is_none_or(|name| host.name == name)).collect();
    if let (true, Some(name)) = (chosen.is_empty(), name) {
        return Err(EditError::Unknown(name.to_string()).into());
    }
    let made = |host: &&Host| MadeView {
        host: host_view(host),
        records: records(host, site.ulid_kind(), domain),
        daemon_reloaded: None,
    };
    let views: Vec<MadeView> = chosen.iter().map(made).collect();
    output.answer(&views, |views| views.iter().flat_map(|view| &view.records).map(|it| format!("{it}\n")).collect())
}

pub(super) fn key_make(config: &Path, bits: u32, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let Some(file) = &site.key else {
        return Err(VerbError::Words(format!("{}: site.key names no file to make a key in", config.display())));
    };
    key::make(file, bits)?;
    account::give(file)?;
    let view = serde_json::json!({ "key": file, "bits": bits });
    output.answer(&view, |_| format!("{}: an RSA key of {bits} bits\n", file.display()))
}

/// The site's key, if one is configured; made when it is not there and `make` is set.
fn site_key(site: &Site, make: bool, output: &mut Output<'_>) -> Result<Option<SigningKey>, VerbError> {
    match &site.key {
        None if make => Err(VerbError::Words("--make-key: the configuration names no site.key".into())),
        None => Ok(None),
        Some(file) if make && !file.exists() => {
            let key = key::make(file, SigningKey::BITS_DEFAULT)?;
            account::give(file)?;
            output.note(format_args!("{}: made an RSA key of {} bits", file.display(), SigningKey::BITS_DEFAULT))?;
            Ok(Some(key))
        }
        Some(file) => match key::load(file) {
            Ok(key) => Ok(Some(key)),
            Err(error) if !file.exists() => {
                Err(VerbError::Words(format!("{error} (host add --make-key or key make makes one)")))
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// Tells a running daemon to reload; false when none runs. One that refuses is an error, since what was written to
/// the file is then not what is served.
pub(super) fn reload(site: &Site, output: &mut Output<'_>) -> Result<bool, VerbError> {
    let socket = &site.node.control_socket;
    match Client::connect(socket).and_then(|mut client| client.call(Request::Reload)) {
        Ok(Response::Reloaded(view)) => {
            for note in &view.notes {
                output.note(format_args!("daemon: {note}"))?;
            }
            Ok(true)
        }
        Ok(_) => Err(VerbError::Words(format!("the daemon at {} gave no answer to the reload", socket.display()))),
        Err(ClientError::NotRunning { .. }) => {
            output.note(format_args!("no daemon runs at {}; it reads the hosts when it starts", socket.display()))?;
            Ok(false)
        }
        Err(error) => {
            Err(VerbError::Words(format!("the hosts file is written, but the daemon did not reload: {error}")))
        }
    }
}

fn hosts(config: &Path) -> Result<(Site, Hosts), VerbError> {
    let (site, _) = Site::load(config)?;
    let hosts = Hosts::load(&site.node.hosts_file, &site)?;
    Ok((site, hosts))
}

/// The hosts as a table for people.
pub(super) fn hosts_table(hosts: &[HostView]) -> String {
    let counted = hosts.iter().any(|host| host.contexts.is_some());
    let mut heading = vec!["NAME", "KIND", "ULID", "LOCATORS"];
    if counted {
        heading.insert(2, ">CONTEXTS");
    }
    let mut table = Table::new(&heading);
    for host in hosts {
        let locators: Vec<String> = host.locators.iter().map(ToString::to_string).collect();
        let mut row = vec![host.name.clone(), host.kind.clone(), host.ulid.to_string(), locators.join(" ")];
        if counted {
            row.insert(2, host.contexts.map_or("-".into(), |count| count.to_string()));
        }
        table.row(row);
    }
    table.to_string()
}

/// A host of the file as the API shows it.
pub(super) fn host_view(host: &Host) -> HostView {
    HostView {
        name: host.name.clone(),
        ulid: host.identity.ulid.0,
        locators: host.identity.locators.iter().map(|locator| locator.0).collect(),
        kind: match host.identity.kind {
            Kind::Hba => "hba",
            Kind::Hybrid => "hybrid",
            Kind::Cga => "cga",
        }
        .into(),
        contexts: None,
    }
}

/// Shows a person how a long search is going. The search may end at any time, so this is a share of what is expected.
fn progress(sec: u8) -> impl FnMut(u64) -> ControlFlow<()> {
    let expected = Sec::new(sec).map_or(1, Sec::work);
    let shown = sec > 0 && io::stderr().is_terminal();
    move |tried| {
        if shown {
            eprint!("\rsearching: {tried} of about {expected} hashes");
            if tried >= expected {
                eprint!(" (bad luck so far)");
            }
        }
        ControlFlow::Continue(())
    }
}
