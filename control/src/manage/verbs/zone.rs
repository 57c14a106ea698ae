//! The site's zones as files: what an operator puts into a server that takes no updates.

use std::net::Ipv6Addr;
use std::path::Path;

use serde::Serialize;

use super::records::{Record, records_of};
use super::{Output, VerbError};
use crate::config::{Hosts, Site};
use crate::manage::api::{Request, Response};
use crate::manage::client::{Client, ClientError};

/// Seconds others may remember a record, where the configuration says nothing.
const TTL_S: u64 = 60;

#[derive(Serialize)]
struct ZonesView {
    /// Whether a running daemon named the hosts, or the hosts file.
    running: bool,
    ttl_s: u64,
    /// The hosts' domain; without one, names are relative.
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    forward: Vec<Record>,
    reverse: Vec<Record>,
}

/// A host as its records need it.
struct Named {
    name: String,
    ulid: Ipv6Addr,
    locators: Vec<Ipv6Addr>,
}

pub(super) fn zone(config: &Path, domain: Option<&str>, output: &mut Output<'_>) -> Result<(), VerbError> {
    let (site, _) = Site::load(config)?;
    let (hosts, running) = match served(&site)? {
        Some(hosts) => (hosts, true),
        None => (of_file(&site)?, false),
    };
    let published = site.publish.as_ref();
    let domain = domain.or(published.map(|publish| publish.zone.as_str())).map(|it| it.trim_matches('.').to_owned());
    let kind = site.ulid_kind();
    let all =
        hosts.iter().flat_map(|host| records_of(&host.name, (host.ulid, kind), &host.locators, domain.as_deref()));
    let (reverse, forward) = all.partition(|record| record.kind == "PTR");
    let ttl_s = published.map_or(TTL_S, |publish| publish.ttl.as_secs());
    let view = ZonesView { running, ttl_s, domain, forward, reverse };
    output.answer(&view, text)
}

fn text(view: &ZonesView) -> String {
    let mut text = format!("$TTL {}\n; names\n", view.ttl_s);
    for record in &view.forward {
        text += &format!("{record}\n");
    }
    text += "; reverse names\n";
    for record in &view.reverse {
        text += &format!("{record}\n");
    }
    text
}

/// The hosts a running daemon serves; nothing if none runs.
fn served(site: &Site) -> Result<Option<Vec<Named>>, VerbError> {
    match Client::reach(site).and_then(|mut client| client.call(Request::Hosts)) {
        Ok(Response::Hosts(view)) => {
            let named = view.hosts.into_iter().map(|it| Named { name: it.name, ulid: it.ulid, locators: it.locators });
            Ok(Some(named.collect()))
        }
        Ok(_) => Err(VerbError::Words("the daemon gave no answer to what was asked".into())),
        Err(ClientError::NotRunning { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn of_file(site: &Site) -> Result<Vec<Named>, VerbError> {
    let hosts = Hosts::load(&site.node.hosts_file, site)?;
    let named = hosts.iter().map(|host| Named {
        name: host.name.clone(),
        ulid: host.identity.ulid.0,
        locators: host.identity.locators.iter().map(|locator| locator.0).collect(),
    });
    Ok(named.collect())
}
