//! The static hosts: names, addresses and what proves that they belong together, in a JSON file beside `site.toml`.
//!
//! Two steps from text to [`Hosts`]: an [`Entry`] is a host as the file has it, which is all that editing needs, so
//! that a host can be removed after its provider has gone; a [`Host`] has been verified against the site as it is
//! now, and only such hosts are served. The file is written by `pshim6ctl host`, whole, by rename.

pub(super) mod locators;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::check::name_error;
use super::prefix::{MacAddress, Prefix};
use super::problem::{Place, Problem, Problems};
use super::site::Site;
use crate::identity::{GenerateError, HostIdentity, HostPrefixes, Sec, SigningKey, make_host_with};
pub use locators::{Updated, locator_under};

/// The version of the format that is read and written.
pub const VERSION: u64 = 1;

/// The hosts of a site, verified; names and addresses are distinct.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    list: Vec<Host>,
    key: Option<Arc<SigningKey>>,
    warnings: Vec<Problem>,
}

/// A host whose parameter data structure proves its identifier, and whose locators are proved by it or by a signature of
/// the site's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What people call it.
    pub name: String,
    /// Its addresses, at most one locator for each provider in the order of `Site::providers`, and their proof.
    pub identity: HostIdentity,
    /// Its link-layer address, if the operator says it: then the box knows at a reload whether an address has moved to
    /// another machine. It is learned by neighbour discovery all the same.
    pub mac: Option<MacAddress>,
}

/// A host as the file has it, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What people call it.
    pub name: String,
    /// Its identifier.
    pub ulid: Ipv6Addr,
    /// Its locators.
    pub locators: Vec<Ipv6Addr>,
    /// Parameter data structure of the identifier.
    pub pds: Vec<u8>,
    /// Its link-layer address, if it is given.
    pub mac: Option<MacAddress>,
}

/// Why the hosts file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The file cannot be understood.
    #[error(transparent)]
    File(#[from] Problems),
    /// The name has letters a name has not.
    #[error("{0}")]
    Name(String),
    /// There is a host of this name.
    #[error("there is a host called {0} already; --replace makes it again, with new addresses")]
    Taken(String),
    /// There is no host of this name.
    #[error("there is no host called {0}")]
    Unknown(String),
    /// No addresses could be made.
    #[error("no addresses could be made: {0}")]
    Generate(#[from] GenerateError),
    /// The new file could not be put in place of the old.
    #[error("{path}: cannot be written: {source}")]
    Save {
        /// The hosts file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Hosts {
    /// Reads `file` and verifies every host for `site`. A file that does not exist holds no hosts.
    pub fn load(file: &Path, site: &Site) -> Result<Hosts, Problems> {
        Hosts::load_text(file, site).map(|(hosts, _)| hosts)
    }

    /// The same, and what the file said.
    pub fn load_text(file: &Path, site: &Site) -> Result<(Hosts, Option<String>), Problems> {
        let Some(text) = read(file)? else { return Ok((Hosts::default(), None)) };
        Ok((Hosts::parse(file, &text, site)?, Some(text)))
    }

    /// Verifies `text` as the contents of `file`.
    pub fn parse(file: &Path, text: &str, site: &Site) -> Result<Hosts, Problems> {
        Hosts::read(Reader::new(file, text), site)
    }

    /// The same with this key or none, whatever the site's file says of one.
    pub fn parse_with(file: &Path, text: &str, site: &Site, key: Option<Arc<SigningKey>>) -> Result<Hosts, Problems> {
        let none = || locators::Key::Missing("there is no key here".into());
        Hosts::read(Reader { key: key.map_or_else(none, locators::Key::Read), ..Reader::new(file, text) }, site)
    }

    fn read(mut reader: Reader<'_>, site: &Site) -> Result<Hosts, Problems> {
        let entries = reader.entries();
        let list: Vec<Host> = entries.into_iter().filter_map(|entry| reader.verify(entry, site)).collect();
        let Reader { problems, warnings, key, .. } = reader;
        if problems.is_empty() { Ok(Hosts { list, key: key.into_read(), warnings }) } else { Err(Problems(problems)) }
    }

    /// The hosts, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Host> {
        self.list.iter()
    }

    /// The same for a change: hosts that were verified may go, and others that were verified for the same site come.
    pub fn list_mut(&mut self) -> &mut Vec<Host> {
        &mut self.list
    }

    /// What signs locators outside the hosts' address sets; nothing, if no host needs it.
    pub fn set_key(&mut self, key: impl Into<Option<Arc<SigningKey>>>) {
        self.key = key.into();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl<'a> IntoIterator for &'a Hosts {
    type Item = &'a Host;
    type IntoIter = std::slice::Iter<'a, Host>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// The hosts file held for a change: nobody else can change it until this is dropped.
pub struct Edit {
    file: PathBuf,
    entries: Vec<Entry>,
    // The directory is locked, since the file itself is replaced.
    _lock: File,
}

impl Edit {
    /// Waits for other editors of the same directory and reads `file`. Hosts are not verified: a host that no longer
    /// fits the site is what editing is for.
    pub fn begin(file: &Path) -> Result<Edit, EditError> {
        // A rename would replace a symbolic link and leave its target alone.
        let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
        let directory = directory_of(&file);
        let lock = File::open(directory).and_then(|directory| directory.lock().map(|()| directory));
        let lock = lock.map_err(|source| EditError::Save { path: file.clone(), source })?;
        let entries = match read(&file)? {
            None => Vec::new(),
            Some(text) => {
                let mut reader = Reader::new(&file, &text);
                let entries = reader.entries();
                if !reader.problems.is_empty() {
                    return Err(Problems(reader.problems).into());
                }
                entries.into_iter().map(|(entry, _)| entry).collect()
            }
        };
        Ok(Edit { file, entries, _lock: lock })
    }

    /// The hosts as they will be saved.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Makes fresh addresses for a host called `name`: hybrid with `key`, HBA-only without. One of that name is in the
    /// way unless `replace`. `progress` hears how many modifiers were tried and may call the search off.
    pub fn add(
        &mut self,
        name: &str,
        replace: bool,
        site: &Site,
        key: Option<&SigningKey>,
        rng: &mut dyn rand::Rng,
        progress: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Host, EditError> {
        if let Some(reason) = name_error(name) {
            return Err(EditError::Name(reason));
        }
        let place = self.entries.iter().position(|entry| entry.name == name);
        if place.is_some() && !replace {
            return Err(EditError::Taken(name.to_string()));
        }
        let prefixes = HostPrefixes {
            ulid: site.lan.high_half(),
            locators: site.providers.iter().map(|provider| provider.prefix.high_half()).collect(),
        };
        let sec = Sec::new(site.sec).unwrap_or(Sec::ZERO);
        let taken = |address: Ipv6Addr| {
            let of_hosts = self.entries.iter().any(|entry| entry.addresses().any(|other| other == address));
            of_hosts || site.ports.iter().any(|port| port.addresses.iter().any(|own| own.address == address))
        };
        let key = key.map(SigningKey::public_key_der);
        let identity = make_host_with(&prefixes, sec, key, rng, &mut |address| taken(address), progress)?;
        let host = Host { name: name.to_string(), identity, mac: None };
        match place {
            Some(index) => self.entries[index] = Entry::from(&host),
            None => self.entries.push(Entry::from(&host)),
        }
        Ok(host)
    }

    /// Forgets the host called `name`.
    pub fn remove(&mut self, name: &str) -> Result<Entry, EditError> {
        let index = self.entries.iter().position(|entry| entry.name == name);
        index.map(|index| self.entries.remove(index)).ok_or_else(|| EditError::Unknown(name.to_string()))
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What the file shall say.
    pub fn text(&self) -> Result<String, EditError> {
        let hosts = self.entries.iter().map(EntryJson::from).collect();
        let json = serde_json::to_string_pretty(&FileJson { version: VERSION, hosts }).map_err(io::Error::from);
        json.map(|json| format!("{json}\n")).map_err(|source| EditError::Save { path: self.file.clone(), source })
    }

    /// Puts the new file in place of the old: a crash leaves one or the other. Mode 0640. What it returns takes it back, and
    /// keeps others from the file until it is dropped.
    pub fn save(self) -> Result<Saved, EditError> {
        let failed = |source| EditError::Save { path: self.file.clone(), source };
        let before = match fs::read(&self.file) {
            Ok(octets) => Some(octets),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        replace_file(&self.file, self.text()?.as_bytes(), 0o640).map_err(failed)?;
        Ok(Saved { file: self.file, before, _lock: self._lock })
    }
}

/// A hosts file that was changed, and what it said before.
pub struct Saved {
    file: PathBuf,
    before: Option<Vec<u8>>,
    _lock: File,
}

impl Saved {
    /// Puts back what was there before.
    pub fn undo(&self) -> Result<(), EditError> {
        let undone = match &self.before {
            Some(octets) => replace_file(&self.file, octets, 0o640),
            None => fs::remove_file(&self.file),
        };
        undone.map_err(|source| EditError::Save { path: self.file.clone(), source })
    }
}

impl Entry {
    /// Identifier and locators.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv6Addr> + '_ {
        std::iter::once(self.ulid).chain(self.locators.iter().copied())
    }
}

impl From<&Host> for Entry {
    fn from(host: &Host) -> Entry {
        Entry {
            name: host.name.clone(),
            ulid: host.identity.ulid.0,
            locators: host.identity.locators.iter().map(|locator| locator.0).collect(),
            pds: host.identity.pds.clone(),
            mac: host.mac,
        }
    }
}

/// The file as it is written.
#[derive(Serialize)]
struct FileJson {
    version: u64,
    hosts: Vec<EntryJson>,
}

#[derive(Serialize)]
struct EntryJson {
    name: String,
    ulid: Ipv6Addr,
    locators: Vec<Ipv6Addr>,
    pds: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
}

impl From<&Entry> for EntryJson {
    fn from(entry: &Entry) -> EntryJson {
        let Entry { name, ulid, locators, pds, mac } = entry.clone();
        EntryJson { name, ulid, locators, pds: Hex(&pds).to_string(), mac: mac.map(|mac| mac.to_string()) }
    }
}

/// The file as it is read: raw values, so that each keeps its place in the text.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRaw<'a> {
    #[serde(borrow)]
    version: &'a RawValue,
    #[serde(borrow)]
    hosts: Vec<&'a RawValue>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryRaw<'a> {
    #[serde(borrow)]
    name: &'a RawValue,
    #[serde(borrow)]
    ulid: &'a RawValue,
    #[serde(borrow)]
    locators: &'a RawValue,
    #[serde(borrow)]
    pds: &'a RawValue,
    #[serde(borrow, default)]
    mac: Option<&'a RawValue>,
}

/// Where an entry's parts stand.
struct Raw<'a> {
    index: usize,
    fields: EntryRaw<'a>,
    locators: Vec<&'a RawValue>,
}

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    key: locators::Key,
}

impl<'a> Reader<'a> {
    fn new(file: &'a Path, text: &'a str) -> Reader<'a> {
        let key = locators::Key::default();
        Reader { file, text, problems: Vec::new(), warnings: Vec::new(), key }
    }

    fn entries(&mut self) -> Vec<(Entry, Raw<'a>)> {
        let raw: FileRaw<'a> = match serde_json::from_str(self.text) {
            Ok(raw) => raw,
            Err(error) => {
                self.json_error(self.text, String::new(), &error);
                return Vec::new();
            }
        };
        match raw.version.get().parse::<u64>() {
            Ok(VERSION) => {}
            _ => {
                let found = raw.version.get();
                self.problem(raw.version, "version".into(), format!("{found} is not a version known here: {VERSION}"));
                return Vec::new();
            }
        }
        let mut entries: Vec<(Entry, Raw<'a>)> = Vec::new();
        for (index, host) in raw.hosts.into_iter().enumerate() {
            let Some((entry, raw)) = self.entry(index, host) else { continue };
            if entries.iter().any(|(other, _)| other.name == entry.name) {
                let text = format!("there is another host called {}", entry.name);
                self.problem(raw.fields.name, format!("hosts[{index}].name"), text);
            }
            let shared =
                entry.addresses().find(|it| entries.iter().any(|(other, _)| other.addresses().any(|o| o == *it)));
            if let Some(address) = shared {
                self.problem(host, format!("hosts[{index}]"), format!("{address} is another host's address"));
            }
            entries.push((entry, raw));
        }
        entries
    }

    fn entry(&mut self, index: usize, raw: &'a RawValue) -> Option<(Entry, Raw<'a>)> {
        let at = |field: &str| format!("hosts[{index}].{field}");
        let fields: EntryRaw<'a> = match serde_json::from_str(raw.get()) {
            Ok(fields) => fields,
            Err(error) => {
                self.json_error(raw.get(), format!("hosts[{index}]"), &error);
                return None;
            }
        };
        let name: Option<String> = self.value(fields.name, at("name"));
        if let Some(reason) = name.as_deref().and_then(name_error) {
            self.problem(fields.name, at("name"), reason);
        }
        let ulid = self.address(fields.ulid, at("ulid"));
        let listed: Option<Vec<&'a RawValue>> = self.value(fields.locators, at("locators"));
        let listed = listed.unwrap_or_default();
        let locators: Vec<Option<Ipv6Addr>> = listed
            .iter()
            .enumerate()
            .map(|(number, locator)| self.address(locator, format!("hosts[{index}].locators[{number}]")))
            .collect();
        let pds: Option<String> = self.value(fields.pds, at("pds"));
        let octets = pds.as_deref().and_then(parse_hex);
        if pds.is_some() && octets.is_none() {
            self.problem(fields.pds, at("pds"), "is not an even number of hex digits".into());
        }
        let locators: Option<Vec<Ipv6Addr>> = locators.into_iter().collect();
        let mac = match fields.mac {
            Some(raw) => Some(self.mac(raw, at("mac"))?),
            None => None,
        };
        let entry = Entry { name: name?, ulid: ulid?, locators: locators?, pds: octets?, mac };
        Some((entry, Raw { index, fields, locators: listed }))
    }

    fn address(&mut self, raw: &'a RawValue, field: String) -> Option<Ipv6Addr> {
        let text: String = self.value(raw, field.clone())?;
        let address = text.parse().ok();
        if address.is_none() {
            self.problem(raw, field, format!("\"{text}\" is not an IPv6 address"));
        }
        address
    }

    fn mac(&mut self, raw: &'a RawValue, field: String) -> Option<MacAddress> {
        let text: String = self.value(raw, field.clone())?;
        let mac = text.parse().ok().filter(|mac: &MacAddress| mac.is_unicast());
        if mac.is_none() {
            self.problem(raw, field, format!("\"{text}\" is not a unicast Ethernet address"));
        }
        mac
    }

    fn value<T: Deserialize<'a>>(&mut self, raw: &'a RawValue, field: String) -> Option<T> {
        match serde_json::from_str(raw.get()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.json_error(raw.get(), field, &error);
                None
            }
        }
    }

    fn problem(&mut self, raw: &RawValue, field: String, text: String) {
        let offset = self.offset_of(raw.get());
        self.problem_at(offset, field, text);
    }

    fn warning(&mut self, raw: &RawValue, field: String, text: String) {
        let place = Some(Place::of(self.text, self.offset_of(raw.get())));
        self.warnings.push(Problem { file: self.file.to_path_buf(), place, field, text });
    }

    fn problem_at(&mut self, offset: usize, field: String, text: String) {
        let place = Some(Place::of(self.text, offset));
        self.problems.push(Problem { file: self.file.to_path_buf(), place, field, text });
    }

    /// Notes an error of the JSON reader in `part` of the text; its line and column count from the part's start.
    fn json_error(&mut self, part: &str, field: String, error: &serde_json::Error) {
        let line_start: usize = part.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let offset = self.offset_of(part) + line_start + error.column().saturating_sub(1);
        let text = error.to_string();
        let suffix = format!(" at line {} column {}", error.line(), error.column());
        self.problem_at(offset, field, text.strip_suffix(&suffix).unwrap_or(&text).to_string());
    }

    /// Where `part`, a slice of the text, begins.
    fn offset_of(&self, part: &str) -> usize {
        (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize)
    }
}

fn list(prefixes: &[Prefix]) -> String {
    prefixes.iter().map(Prefix::to_string).collect::<Vec<_>>().join(", ")
}

/// The text of `file`; none when it does not exist.
fn read(file: &Path) -> Result<Option<String>, Problems> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Problem::of_file(file, format!("cannot be read: {error}")).into()),
    }
}

fn directory_of(file: &Path) -> &Path {
    file.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `octets` beside `file`, makes them last, and renames: readers see the old file or the new one. The owner stays.
pub(super) fn replace_file(file: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let directory = directory_of(file);
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    let beside = directory.join(format!(".{name}.{}", std::process::id()));
    let written = (|| {
        let mut new = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        // The umask had its say at creation; the mode is meant.
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        if let Ok(old) = fs::metadata(file) {
            // Root changes the file of somebody who has to go on reading it. Others cannot give files away, and need not.
            let _ = fchown(&new, Some(old.uid()), Some(old.gid()));
        }
        new.write_all(octets)?;
        new.sync_all()?;
        fs::rename(&beside, file)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // Best effort: the error that stopped us says more than one about litter would.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Octets shown as hex digits.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(out, "{octet:02x}"))
    }
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
#[path = "hosts_tests.rs"]
mod tests;
