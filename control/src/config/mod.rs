//! The operator's word: `site.toml` and the hosts file, read into something that can be obeyed or refused in full.
//!
//! Configuration ripens in types: `SiteFile` is what the TOML said, [`Site`] what can be obeyed; the engine makes the
//! workers' snapshot from it. A fault is a [`Problem`] with file, line, column and field, and all faults are told at
//! once. [`Configuration::load`] is the one way in, for a start and for a reload alike.

mod blocks;
#[cfg(test)]
mod blocks_tests;
pub mod bmp;
mod check;
pub mod cluster;
mod dhcp;
mod dns;
pub mod documents;
pub mod edit;
mod file;
mod fork;
#[cfg(test)]
mod fork_tests;
pub mod hosts;
pub mod key;
pub mod limits;
mod manage;
mod natv6;
#[cfg(test)]
mod natv6_tests;
mod network;
pub mod prefix;
mod problem;
pub mod publish;
pub mod reload;
pub mod routes;
pub mod site;
mod source;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod uplink;
mod web;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::identity::{Kind, Parameters};

pub use cluster::Cluster;
pub use fork::{code_point, range as port_range, upper_layer};
pub use hosts::{Host, Hosts};
pub use prefix::{LinkAddress, MacAddress, Prefix};
pub use problem::{Place, Problem, Problems};
pub use site::Site;

/// Where the configuration is looked for when no other place is named.
pub const DEFAULT_PATH: &str = "/etc/pshim6/site.toml";

/// Everything the operator said, checked as a whole.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The file it came from; loading it again is a reload.
    pub file: PathBuf,
    /// The box and its site.
    pub site: Site,
    /// The static hosts, verified against `site`.
    pub hosts: Hosts,
    /// What says that the names that are published are ours; nothing without `[publish]`.
    pub publish_key: Option<publish::TsigKey>,
    /// What the policy file says; nothing if there is no such file.
    pub policy: Option<String>,
    /// Certificates and keys for management over TLS; nothing without `manage.listen`.
    pub tls: Option<Arc<tls::Tls>>,
    /// Certificate, key and password for the store that boxes share; nothing without `store.etcd`.
    pub access: Option<cluster::Access>,
    /// Certificates, keys and the secret for other boxes of the site; nothing without `[sync]`.
    pub sync: Option<sync::SyncFiles>,
    /// The same for routers that tell of routes; nothing without `[bmp]`, or where that is plain.
    pub bmp_tls: Option<Arc<tls::Tls>>,
    /// What can be obeyed but should be known.
    pub warnings: Vec<Problem>,
    /// What the files said that `site` and `hosts` came from.
    pub texts: Arc<Texts>,
}

/// What the files of a configuration said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// That of the site.
    pub site: String,
    /// That of the hosts, if there is one.
    pub hosts: Option<String>,
}

impl Configuration {
    /// Reads `file` and the hosts file it names; all of it is good or none of it is taken.
    pub fn load(file: &Path) -> Result<Configuration, Problems> {
        let text = Site::read(file)?;
        let (site, mut warnings) = Site::parse(file, &text)?;
        let (mut hosts, listed) = Hosts::load_text(&site.node.hosts_file, &site)?;
        // Addresses of clients, and those in prefixes that come later, are made with it, so it must be there.
        let made_later = site.dhcp.is_some() || !site.uplinks.is_empty();
        if let Some(file) = site.key.as_ref().filter(|_| made_later && hosts.key().is_none()) {
            let key = key::load(file).map_err(|error| Problem::of_file(file, error.reason()))?;
            hosts.set_key(Arc::new(key));
        }
        let policy = read_policy(&site.node.policy_file)?;
        let key = site.publish.as_ref().map(|publish| publish::TsigKey::load(&publish.key));
        let publish_key = key.transpose()?;
        let tls = site.manage.tls.as_ref().map(tls::Tls::load).transpose()?.map(Arc::new);
        let access = site.cluster.as_ref().map(cluster::Access::load).transpose()?;
        let sync = site.sync.as_ref().map(sync::SyncFiles::load).transpose()?;
        if hosts.is_empty() && site.dhcp.is_none() {
            warnings.push(Problem::of_file(&site.node.hosts_file, "no hosts yet (pshim6ctl host add NAME)"));
        }
        warnings.extend(hosts.warnings().iter().cloned());
        warnings.extend(key_warnings(&site, &hosts));
        if let (Some(tls), Some(files)) = (&tls, &site.manage.tls) {
            warnings.extend(tls.warning().map(|text| Problem::of_file(&files.certificate, text)));
        }
        let bmp_files = site.bmp.as_ref().and_then(|bmp| bmp.tls.as_ref());
        let bmp_tls = bmp_files.map(tls::Tls::load).transpose()?.map(Arc::new);
        if let (Some(tls), Some(files)) = (&bmp_tls, bmp_files) {
            warnings.extend(tls.warning().map(|text| Problem::of_file(&files.certificate, text)));
        }
        let (file, texts) = (file.to_path_buf(), Arc::new(Texts { site: text, hosts: listed }));
        Ok(Configuration { file, site, hosts, publish_key, policy, tls, access, bmp_tls, sync, warnings, texts })
    }
}

/// What a policy file says; nothing if it does not exist.
pub fn read_policy(file: &Path) -> Result<Option<String>, Problems> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::of_file(file, format!("cannot be read: {error}")).into()),
    }
}

/// What is odd about the site's key and the hosts that were made with it. Nothing of it stops the box: the key signs
/// locators outside a host's set, and sessions within the set do without.
fn key_warnings(site: &Site, hosts: &Hosts) -> Vec<Problem> {
    let Some(file) = &site.key else { return Vec::new() };
    let key = match key::load(file) {
        Ok(key) => key,
        Err(error) => return vec![Problem::of_file(file, error.reason())],
    };
    let hybrid = hosts.iter().filter(|host| host.identity.kind == Kind::Hybrid);
    let foreign = hybrid.filter(|host| match Parameters::parse(&host.identity.pds) {
        Ok(parameters) => parameters.key().der() != key.public_key_der(),
        Err(_) => true,
    });
    let text = |host: &Host| format!("is not the key that host {} was made with; it cannot sign for it", host.name);
    foreign.map(|host| Problem::of_file(file, text(host))).collect()
}

impl Site {
    /// Reads and checks `file`; also what it says that can be obeyed but should be known.
    pub fn load(file: &Path) -> Result<(Site, Vec<Problem>), Problems> {
        Site::parse(file, &Site::read(file)?)
    }

    fn read(file: &Path) -> Result<String, Problems> {
        let unread = |error| Problem::of_file(file, format!("cannot be read: {error}")).into();
        std::fs::read_to_string(file).map_err(unread)
    }

    /// Checks `text` as the contents of `file`, which gives relative paths their start and problems their name.
    pub fn parse(file: &Path, text: &str) -> Result<(Site, Vec<Problem>), Problems> {
        match check::site(file, text) {
            (Some(site), _, warnings) => Ok((site, warnings)),
            (None, problems, _) => Err(Problems(problems)),
        }
    }
}
