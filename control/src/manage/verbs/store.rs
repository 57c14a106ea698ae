//! Commands about the store: the file itself, the daemon that has it open, or the cluster that several boxes share.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Output, StoreVerb, VerbError, account};
use crate::config::documents::{Share, wrap_key};
use crate::config::{Cluster, Site};
use crate::manage::api::{Request, Response};
use crate::manage::client::Client;
use crate::store::shared::etcd::{Client as Etcd, Endpoint, Settings};
use crate::store::shared::{Heard, Seal, Shared};
use crate::store::{Export, News, Storage, Store, StoreError};

/// What we are called at the cluster; nothing is written under it.
const NAME: &str = "pshim6ctl";

pub(super) fn run(config: &Path, verb: &StoreVerb, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let Some(file) = &site.store else {
        return Err(VerbError::Words(format!("{}: there is no [store]", config.display())));
    };
    let cluster = site.cluster.as_ref();
    match verb {
        StoreVerb::Export => {
            let export = match cluster {
                None => own(&site, file)?,
                Some(cluster) => {
                    let found = shared(cluster).and_then(|mut store| {
                        let empty = VerbError::Words(format!("{} is empty", store.name()));
                        if file.exists() && store.read_duid()?.is_none() { Err(empty) } else { Ok(store.export()?) }
                    });
                    match found {
                        Ok(export) => export,
                        Err(error) => {
                            output.note(format!("{error}; what follows is what this box knows of it"))?;
                            copy(&site, file, cluster)?
                        }
                    }
                }
            };
            // It is for machines, whatever `--json` says.
            Output {
                json: true,
                socket: output.socket,
                remote: output.remote,
                out: &mut *output.out,
                err: &mut *output.err,
            }
            .answer(&export, |_| String::new())
        }
        StoreVerb::Import { file: from } => {
            let export = read(from)?;
            let wrong = |error| VerbError::Words(format!("not all of it was taken in: {error}"));
            let name = match cluster {
                None => {
                    let mut store = Store::open(file)?;
                    store.import(&export).map_err(wrong)?;
                    account::give(file)?;
                    store.name()
                }
                Some(cluster) => {
                    let mut store = shared(cluster)?;
                    store.import(&export).map_err(wrong)?;
                    store.name()
                }
            };
            output.note(format!("{name}: {} leases", export.stored.leases.len()))
        }
        StoreVerb::Check => match cluster {
            None => {
                let mut store = Store::open_existing(file)?;
                let whole = store.check()?;
                let stored = store.load()?;
                let state = if whole { "good" } else { "repaired" };
                output.note(format!(
                    "{}: {state}; {} leases, {} quarantined",
                    file.display(),
                    stored.leases.len(),
                    stored.quarantine.len()
                ))
            }
            Some(cluster) => check(cluster, output),
        },
        StoreVerb::Pull => match cluster {
            Some(cluster) => pull(&site, cluster, output),
            None => Err(VerbError::Words(format!("{}: [store] is this box's alone", config.display()))),
        },
    }
}

/// The file, or what the daemon says that has it.
fn own(site: &Site, file: &Path) -> Result<Export, VerbError> {
    match Store::open_existing(file) {
        Ok(mut store) => Ok(store.export()?),
        Err(StoreError::InUse { .. }) => ask(site),
        Err(error) => Err(error.into()),
    }
}

/// The same of a box's copy of what several share.
fn copy(site: &Site, file: &Path, cluster: &Cluster) -> Result<Export, VerbError> {
    Store::open_existing(file).map(drop).or_else(|error| match error {
        StoreError::InUse { .. } => Ok(()),
        error => Err(error),
    })?;
    match Shared::open(file, NAME, etcd(cluster)?) {
        Ok(mut store) => Ok(store.export()?),
        Err(StoreError::InUse { .. }) => ask(site),
        Err(error) => Err(error.into()),
    }
}

fn etcd(cluster: &Cluster) -> Result<Etcd, VerbError> {
    let settings = Settings::load(cluster).map_err(|problem| VerbError::Words(problem.to_string()))?;
    Etcd::new(settings).map_err(|error| VerbError::Words(error.to_string()))
}

/// Everything the cluster has.
fn shared(cluster: &Cluster) -> Result<Shared<Etcd>, VerbError> {
    let all = etcd(cluster)?.read_all().map_err(|error| VerbError::Words(error.to_string()))?;
    let mut store = Shared::passing(NAME, etcd(cluster)?)?;
    store.hear(Heard::All(all))?;
    match store.alone() {
        None => Ok(store),
        Some(reason) => Err(VerbError::Words(format!("{}: {reason}", store.name()))),
    }
}

/// Which members of a cluster there are, and whether each answers.
pub(super) fn members(cluster: &Cluster) -> Vec<(String, Result<(), String>)> {
    let ask = |(host, port): &(String, u16)| {
        let one = Cluster { endpoints: vec![(host.clone(), *port)], ..cluster.clone() };
        let answer = match etcd(&one) {
            Ok(mut client) => client.newest().map(drop).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        (Endpoint { host: host.clone(), port: *port }.to_string(), answer)
    };
    cluster.endpoints.iter().map(ask).collect()
}

/// Writes the files that boxes share as the store has them, for a box that has none yet.
fn pull(site: &Site, cluster: &Cluster, output: &mut Output<'_>) -> Result<(), VerbError> {
    let wrong = |error: &dyn std::fmt::Display| VerbError::Words(error.to_string());
    let octets = cluster.wrap_key.as_deref().map(wrap_key).transpose().map_err(|problem| wrong(&problem))?;
    let seal = octets.and_then(|octets| Seal::new(&octets));
    for document in shared(cluster)?.documents() {
        let Some(share) = cluster.share.iter().find(|share| share.name() == document.name) else { continue };
        let Some(file) = share.file(site) else { continue };
        let text = match (document.text, share, &seal) {
            (Some(sealed), Share::Key, Some(seal)) => {
                let opened = seal.open(&document.name, &sealed);
                Some(opened.ok_or_else(|| wrong(&"the site's key in the store was not sealed with store.wrap_key"))?)
            }
            (text, ..) => text,
        };
        let there = share.read(&file).map_err(|error| wrong(&format!("{}: {error}", file.display())))?;
        if there == text {
            continue;
        }
        let failed = |error: std::io::Error| wrong(&format!("{}: {error}", file.display()));
        if let Some(own) = &there {
            let aside = share.put_aside(&file, own).map_err(failed)?;
            output.note(format!("{}: what it said is in {} now", file.display(), aside.display()))?;
        }
        share.write(&file, text.as_deref()).map_err(failed)?;
        if text.is_some() {
            account::give(&file)?;
        }
        output.note(format!("{}: version {} of box {}", file.display(), document.version, document.by))?;
    }
    Ok(())
}

/// Each member of the cluster, and each row that is in it.
fn check(cluster: &Cluster, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (mut silent, mut unreadable) = (0, Vec::new());
    for (_, answer) in members(cluster) {
        if let Err(error) = answer {
            silent += 1;
            output.note(error)?;
        }
    }
    let mut store = shared(cluster)?;
    let stored = store.load()?;
    for news in store.news() {
        if let News::Unreadable(row) = news {
            unreadable.push(row);
        }
    }
    let members = cluster.endpoints.len();
    let (leases, held) = (stored.leases.len(), stored.quarantine.len());
    let answering = members - silent;
    output.note(format!(
        "{}: {answering} of {members} members answer; {leases} leases, {held} quarantined",
        store.name()
    ))?;
    match unreadable.first() {
        None => Ok(()),
        Some(row) => {
            Err(VerbError::Words(format!("{} rows cannot be read, {row} is the first of them", unreadable.len())))
        }
    }
}

fn ask(site: &Site) -> Result<Export, VerbError> {
    let mut client = Client::reach(site)?;
    match client.call(Request::StoreExport)? {
        Response::Store(export) => Ok(*export),
        _ => Err(client.wrong_answer().into()),
    }
}

fn read(from: &PathBuf) -> Result<Export, VerbError> {
    let wrong = |error: &dyn std::fmt::Display| VerbError::Words(format!("{}: {error}", from.display()));
    let mut text = String::new();
    let result = match from.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(from).and_then(|mut file| file.read_to_string(&mut text)),
    };
    result.map_err(|error| wrong(&error))?;
    serde_json::from_str(&text).map_err(|error| wrong(&error))
}
