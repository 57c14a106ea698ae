//! The store that several boxes of a site share (`store.etcd`, and what goes with it).

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ring::digest::{Context, SHA256, digest};
use rustls::ClientConfig;
use toml::Spanned;

use super::check::required;
use super::documents::{self, Share};
use super::file::StoreSection;
use super::problem::Problem;
use super::source::Source;
use super::tls;

/// What keys begin with unless something else is said.
const PREFIX: &str = "/pshim6/";
/// Members of a cluster.
const ENDPOINTS_MAX: usize = 16;
/// Octets of a prefix.
const PREFIX_MAX: usize = 128;

/// Where the store is that boxes share, and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Hosts (names, or addresses without brackets) and ports of its members, at least one.
    pub endpoints: Vec<(String, u16)>,
    /// What each of its keys begins with; begins and ends with a slash.
    pub prefix: String,
    /// Who signs certificates of its members (`store.ca`).
    pub authority: PathBuf,
    /// Our certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Our name there, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// Files that boxes share by it (`store.share`), each once.
    pub share: Vec<Share>,
    /// What seals the site's key among them (`store.wrap_key`).
    pub wrap_key: Option<PathBuf>,
}

/// The files of it, read.
#[derive(Clone)]
pub struct Access {
    /// Whom we trust, and our certificate.
    pub tls: Arc<ClientConfig>,
    /// Name and password.
    pub user: Option<(String, String)>,
    /// What tells the files from others: SHA-256 of all they say.
    pub print: Vec<u8>,
}

impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_ref().map(|(name, _)| name);
        out.debug_struct("Access").field("user", &user).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads the files.
    ///
    /// # Errors
    /// A [`Problem`] that names the file, without a word of what is in it.
    pub fn load(cluster: &Cluster) -> Result<Access, Problem> {
        let tls = tls::client(&cluster.authority, &cluster.certificate, &cluster.key)?;
        let user = cluster.user.as_ref().map(|(name, file)| Ok((name.clone(), password(file)?))).transpose()?;
        cluster.wrap_key.as_deref().map(documents::wrap_key).transpose()?;
        let mut print = Context::new(&SHA256);
        for file in [&cluster.authority, &cluster.certificate, &cluster.key] {
            let said = fs::read(file).map_err(|error| Problem::of_file(file, format!("cannot be read: {error}")))?;
            print.update(digest(&SHA256, &said).as_ref());
        }
        for said in user.iter().flat_map(|(name, password)| [name, password]) {
            print.update(digest(&SHA256, said.as_bytes()).as_ref());
        }
        Ok(Access { tls, user, print: print.finish().as_ref().to_vec() })
    }
}

fn password(file: &Path) -> Result<String, Problem> {
    let wrong = |text: String| Problem::of_file(file, text);
    let unread = |error: std::io::Error| wrong(format!("cannot be read: {error}"));
    let mode = fs::metadata(file).map_err(unread)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(wrong(format!("mode {mode:04o} lets everybody read the password; chmod 600 {}", file.display())));
    }
    let text = fs::read_to_string(file).map_err(unread)?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(wrong("holds no password".into())),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn check(source: &mut Source<'_>, table: &Spanned<StoreSection>, directory: &Path) -> Option<Cluster> {
    let (span, section) = (table.span(), table.get_ref());
    let others = [
        ("prefix", &section.prefix),
        ("ca", &section.ca),
        ("certificate", &section.certificate),
        ("key", &section.key),
        ("user", &section.user),
        ("password_file", &section.password_file),
        ("wrap_key", &section.wrap_key),
    ];
    let Some(list) = &section.etcd else {
        for (name, field) in others {
            if let Some(field) = field {
                source.problem(&field.span(), format!("{name} is for a store that boxes share; there is no etcd"));
            }
        }
        return None;
    };
    let mut endpoints = Vec::new();
    for text in list.get_ref() {
        match endpoint(text.get_ref()) {
            Some(found) if endpoints.contains(&found) => source.problem(&text.span(), "stands twice"),
            Some(found) => endpoints.push(found),
            None => {
                let said = format!("\"{}\" is not of the form https://etcd-1.example:2379", text.get_ref());
                source.problem(&text.span(), said);
            }
        }
    }
    if list.get_ref().is_empty() || list.get_ref().len() > ENDPOINTS_MAX {
        source.problem(&list.span(), format!("names 1 to {ENDPOINTS_MAX} members of the cluster"));
    }
    let prefix = section.prefix.as_ref().map_or(PREFIX, |prefix| prefix.get_ref());
    let whole = prefix.starts_with('/') && prefix.ends_with('/') && prefix.len() <= PREFIX_MAX;
    if let Some(field) = section.prefix.as_ref().filter(|_| !whole || !prefix.chars().all(|it| it.is_ascii_graphic())) {
        source.problem(&field.span(), "begins and ends with a slash, and is of letters one can see");
    }
    let file = |source: &mut Source<'_>, name: &str, field: &Option<Spanned<String>>| {
        let field = required(source, &span, name, field)?;
        if field.get_ref().is_empty() {
            source.problem(&field.span(), "names no file");
        }
        Some(directory.join(field.get_ref()))
    };
    let authority = file(source, "ca", &section.ca);
    let certificate = file(source, "certificate", &section.certificate);
    let key = file(source, "key", &section.key);
    let user = match (&section.user, &section.password_file) {
        (None, None) => None,
        (Some(user), Some(password)) => {
            if user.get_ref().is_empty() || password.get_ref().is_empty() {
                source.problem(&user.span(), "user and password_file are both needed, or none of them");
            }
            Some((user.get_ref().clone(), directory.join(password.get_ref())))
        }
        (Some(one), None) | (None, Some(one)) => {
            source.problem(&one.span(), "user and password_file are both needed, or none of them");
            None
        }
    };
    let mut share: Vec<Share> = Vec::new();
    for item in section.share.iter().flat_map(|list| list.get_ref()) {
        match share.contains(item.get_ref()) {
            true => source.problem(&item.span(), "stands twice"),
            false => share.push(*item.get_ref()),
        }
    }
    let wrap_key = section.wrap_key.as_ref().map(|file| directory.join(file.get_ref()));
    if wrap_key.is_some() != share.contains(&Share::Key) {
        let said = "share has \"key\" and wrap_key names what seals it, or neither";
        let at = section.wrap_key.as_ref().map(Spanned::span).or(section.share.as_ref().map(Spanned::span));
        source.problem(&at.unwrap_or(span.clone()), said);
    }
    Some(Cluster {
        share,
        wrap_key,
        endpoints,
        prefix: prefix.to_owned(),
        authority: authority?,
        certificate: certificate?,
        key: key?,
        user,
    })
}

/// `https://host:port`; nothing else, since nothing else is safe.
fn endpoint(text: &str) -> Option<(String, u16)> {
    let rest = text.strip_prefix("https://")?;
    let (host, port) = rest.strip_suffix('/').unwrap_or(rest).rsplit_once(':')?;
    let bare = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']').filter(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => host,
    };
    let good = rustls::pki_types::ServerName::try_from(bare).is_ok() && (host.starts_with('[') || !bare.contains(':'));
    Some((bare.to_owned(), port.parse().ok().filter(|port| *port > 0)?)).filter(|_| good)
}
