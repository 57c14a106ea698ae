//! What a box must not forget: leases with the addresses and CGA parameters made for them, what is quarantined, and the
//! name the DHCPv6 server goes by. One file, `redb`, mode 0600.
//!
//! Whatever [`Store::commit`] has returned from is on disk, all of it or nothing, also if the machine loses its power the
//! moment after. Nothing here runs by itself: a thread of the driver calls it, since a commit waits for the disk.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | a name | `version` of the format; the server's `duid` |
//! | `leases` | IAID, then DUID | a [`Lease`] as JSON |
//! | `quarantine` | an identifier | a [`Held`] as JSON |
//! | `published` | a name in DNS, and its tree | nothing |
//! | `delegations` | the name of a provider | what it delegated, as JSON |
//!
//! The format has a version. A file of an older one is brought up to date by the steps between, in one
//! transaction; one of a newer version is refused. The site's key is not in here: it has a file of its own already
//! (`site.key`), which nobody but its owner may read, and a secret had better be in one place.

mod export;
mod migrate;
mod reading;
pub mod shared;
mod storage;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv6Addr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError,
    WriteTransaction,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Change, Client, Duid, Held, Lease, Stored};
pub use export::{Export, ExportError};
use reading::Reading;
pub use reading::being_read;
pub use storage::{Entry, News, Storage, Verdict};

/// The version of the format that is read and written.
pub const VERSION: u64 = migrate::STEPS.len() as u64 + 1;

const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const LEASES: TableDefinition<'_, &[u8], &str> = TableDefinition::new("leases");
const QUARANTINE: TableDefinition<'_, u128, &str> = TableDefinition::new("quarantine");
/// Younger than the format: files without it are good.
const PUBLISHED: TableDefinition<'_, &str, ()> = TableDefinition::new("published");

/// Younger than the format too.
const DELEGATIONS: TableDefinition<'_, &str, &str> = TableDefinition::new("delegations");

/// Memory for pages of the file.
const CACHE_OCTETS: usize = 16 * 1024 * 1024;

/// Why the store did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or made.
    #[error("{file}: cannot be opened: {source}")]
    Open {
        /// The store.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it, not even what a new one has.
    #[error(
        "{file}: empty, and so no store any more; put a copy in its place, or move it away to begin without leases"
    )]
    Empty {
        /// The store.
        file: PathBuf,
    },
    /// Others than the owner may read it.
    #[error("{file}: mode {mode:04o} lets others read it; chmod 600 {file}")]
    Mode {
        /// The store.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A daemon has it.
    #[error("{file}: in use by another process")]
    InUse {
        /// The store.
        file: PathBuf,
    },
    /// It was written by a newer program.
    #[error("{file}: format {found} is newer than what is known here ({VERSION})")]
    Newer {
        /// The store.
        file: PathBuf,
        /// Its version.
        found: u64,
    },
    /// It holds something that was not written by us.
    #[error("{file}: {what} cannot be read: {reason}")]
    Damaged {
        /// The store.
        file: PathBuf,
        /// Where.
        what: String,
        /// Why.
        reason: String,
    },
    /// The file or the disk.
    #[error("{file}: {source}")]
    Database {
        /// The store.
        file: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// The cluster that several boxes share.
    #[error("{name}: {reason}")]
    Cluster {
        /// Where it is.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// An open store. Nobody else can open it meanwhile.
pub struct Store {
    file: PathBuf,
    database: Database,
}

impl Store {
    /// Opens `file`, or makes it. One of an older format is brought up to date.
    pub fn open(file: &Path) -> Result<Store, StoreError> {
        Store::open_with(file, migrate::STEPS)
    }

    fn open_with(file: &Path, steps: &[migrate::Step]) -> Result<Store, StoreError> {
        let wrong = |source| StoreError::Open { file: file.to_path_buf(), source };
        if !file.try_exists().map_err(wrong)? {
            // Made under another name: whenever we are stopped, there is a whole store under its own, or none.
            let new = file.with_extension("new");
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
                _ => drop(Store::open_file(&new, steps)?),
            }
            let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            fs::rename(&new, file).and_then(|()| File::open(directory)?.sync_all()).map_err(wrong)?;
        }
        // The library would make a new one of it, and give away what was given.
        if fs::metadata(file).map_err(wrong)?.len() == 0 {
            return Err(StoreError::Empty { file: file.to_path_buf() });
        }
        Store::open_file(file, steps)
    }

    fn open_file(file: &Path, steps: &[migrate::Step]) -> Result<Store, StoreError> {
        let wrong = |source| StoreError::Open { file: file.to_path_buf(), source };
        // Made with its final mode: there is no moment in which others could read it.
        let mut options = OpenOptions::new();
        let opened =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).open(file).map_err(wrong)?;
        let mode = opened.metadata().map_err(wrong)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(StoreError::Mode { file: file.to_path_buf(), mode });
        }
        let backend = FileBackend::new(opened).map_err(|error| failure(file, error))?;
        Store::open_backend(file, backend, steps)
    }

    fn open_backend(file: &Path, backend: impl StorageBackend, steps: &[migrate::Step]) -> Result<Store, StoreError> {
        let _reading = Reading::of(file);
        let database = Database::builder().set_cache_size(CACHE_OCTETS).create_with_backend(backend);
        let database = database.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { file: file.to_path_buf() },
            error => failure(file, error),
        })?;
        let store = Store { file: file.to_path_buf(), database };
        store.bring_up_to_date(steps)?;
        Ok(store)
    }

    /// Which file it is.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Opens `file` if it is there.
    pub fn open_existing(file: &Path) -> Result<Store, StoreError> {
        fs::metadata(file).map_err(|source| StoreError::Open { file: file.to_path_buf(), source })?;
        Store::open(file)
    }

    fn bring_up_to_date(&self, steps: &[migrate::Step]) -> Result<(), StoreError> {
        let current = steps.len() as u64 + 1;
        let transaction = self.database.begin_write().map_err(|error| self.failed(error))?;
        let found = self.version_in(&transaction)?;
        match found {
            Some(found) if found > current => return Err(StoreError::Newer { file: self.file.clone(), found }),
            Some(found) if found == current => return transaction.abort().map_err(|error| self.failed(error)),
            Some(found) => {
                let first = usize::try_from(found.saturating_sub(1)).unwrap_or(usize::MAX);
                for step in steps.get(first..).unwrap_or_default() {
                    step(&transaction).map_err(|error| self.failed(error))?;
                }
            }
            None => {}
        }
        let write = || -> Result<(), redb::Error> {
            transaction.open_table(LEASES)?;
            transaction.open_table(QUARANTINE)?;
            transaction.open_table(META)?.insert("version", current.to_string().as_str())?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))?;
        transaction.commit().map_err(|error| self.failed(error))
    }

    fn version_in(&self, transaction: &WriteTransaction) -> Result<Option<u64>, StoreError> {
        let meta = transaction.open_table(META).map_err(|error| self.failed(error))?;
        let text = meta.get("version").map_err(|error| self.failed(error))?.map(|text| text.value().to_owned());
        let damaged = |text: &String| self.damaged("version", format!("\"{text}\" is no version"));
        text.map(|text| text.parse().ok().filter(|found| *found > 0).ok_or_else(|| damaged(&text))).transpose()
    }

    /// The name the DHCPv6 server goes by; `fresh` if it has none yet, and from then on.
    pub fn duid(&self, fresh: &Duid) -> Result<Duid, StoreError> {
        if let Some(known) = self.read_duid()? {
            return Ok(known);
        }
        let name = fresh.to_string();
        self.write(|transaction| {
            transaction.open_table(META)?.insert("duid", name.as_str()).map(drop).map_err(Into::into)
        })?;
        Ok(fresh.clone())
    }

    /// The name the DHCPv6 server goes by, if it has one yet.
    pub fn read_duid(&self) -> Result<Option<Duid>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.failed(error))?;
        let meta = transaction.open_table(META).map_err(|error| self.failed(error))?;
        let text = meta.get("duid").map_err(|error| self.failed(error))?.map(|text| text.value().to_owned());
        text.map(|text| text.parse().map_err(|reason| self.damaged("duid", reason))).transpose()
    }

    /// Everything in it.
    pub fn load(&self) -> Result<Stored, StoreError> {
        let _reading = Reading::of(&self.file);
        let transaction = self.database.begin_read().map_err(|error| self.failed(error))?;
        let mut stored = Stored::default();
        let leases = transaction.open_table(LEASES).map_err(|error| self.failed(error))?;
        for row in leases.iter().map_err(|error| self.failed(error))? {
            let (key, value) = row.map_err(|error| self.failed(error))?;
            let lease: Lease = self.parsed("a lease", value.value())?;
            if key.value() != key_of(&lease.client) {
                return Err(self.damaged(&format!("the lease of {}", lease.client.duid), "it is in another's place"));
            }
            stored.leases.push(lease);
        }
        let quarantine = transaction.open_table(QUARANTINE).map_err(|error| self.failed(error))?;
        for row in quarantine.iter().map_err(|error| self.failed(error))? {
            let (key, value) = row.map_err(|error| self.failed(error))?;
            let held: Held = self.parsed("a quarantine", value.value())?;
            if key.value() != held.ulid.to_bits() {
                return Err(self.damaged(&format!("the quarantine of {}", held.ulid), "it is in another's place"));
            }
            stored.quarantine.push(held);
        }
        Ok(stored)
    }

    /// Names that may be in DNS because of this box.
    pub fn published(&self) -> Result<Vec<String>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.failed(error))?;
        let names = match transaction.open_table(PUBLISHED) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            names => names.map_err(|error| self.failed(error))?,
        };
        let rows = names.iter().map_err(|error| self.failed(error))?;
        rows.map(|row| row.map(|(name, _)| name.value().to_owned()).map_err(|error| self.failed(error))).collect()
    }

    /// What providers delegated, by their names.
    pub fn delegations(&self) -> Result<Vec<(String, Delegation)>, StoreError> {
        let transaction = self.database.begin_read().map_err(|error| self.failed(error))?;
        let table = match transaction.open_table(DELEGATIONS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
            table => table.map_err(|error| self.failed(error))?,
        };
        let mut all = Vec::new();
        for row in table.iter().map_err(|error| self.failed(error))? {
            let (name, value) = row.map_err(|error| self.failed(error))?;
            all.push((name.value().to_owned(), self.parsed("a delegated prefix", value.value())?));
        }
        Ok(all)
    }

    /// Writes what providers delegated, or that they delegated nothing.
    pub fn commit_delegations<'c>(
        &self,
        delegations: impl IntoIterator<Item = (&'c str, Option<&'c Delegation>)>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut table = transaction.open_table(DELEGATIONS)?;
            for (name, delegation) in delegations {
                match delegation {
                    Some(delegation) => _ = table.insert(name, json(delegation).as_str())?,
                    None => _ = table.remove(name)?,
                }
            }
            Ok(())
        })
    }

    /// Writes changes in order, all or none. They are on disk when this returns.
    pub fn commit<'c>(&self, changes: impl IntoIterator<Item = &'c Change>) -> Result<(), StoreError> {
        self.commit_with(changes, [])
    }

    /// The same, together with names that may be in DNS from now on, or are there no more if that is false.
    pub fn commit_with<'c>(
        &self,
        changes: impl IntoIterator<Item = &'c Change>,
        published: impl IntoIterator<Item = (String, bool)>,
    ) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut names = transaction.open_table(PUBLISHED)?;
            for (name, there) in published {
                match there {
                    true => _ = names.insert(name.as_str(), ())?,
                    false => _ = names.remove(name.as_str())?,
                }
            }
            let mut leases = transaction.open_table(LEASES)?;
            let mut quarantine = transaction.open_table(QUARANTINE)?;
            for change in changes {
                match change {
                    Change::Put(lease) => _ = leases.insert(&key_of(&lease.client)[..], json(lease).as_str())?,
                    Change::Forget(client) => _ = leases.remove(&key_of(client)[..])?,
                    Change::Hold(held) => _ = quarantine.insert(held.ulid.to_bits(), json(held).as_str())?,
                    Change::Free(ulid) => _ = quarantine.remove(Ipv6Addr::to_bits(*ulid))?,
                }
            }
            Ok(())
        })
    }

    fn write(&self, fill: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        // redb's own default is what we need: a commit is durable when it returns.
        let transaction = self.database.begin_write().map_err(|error| self.failed(error))?;
        fill(&transaction).map_err(|error| self.failed(error))?;
        transaction.commit().map_err(|error| self.failed(error))
    }

    /// Reads every page and everything on it. False if the file had to be repaired.
    pub fn check(&mut self) -> Result<bool, StoreError> {
        let _reading = Reading::of(&self.file);
        let whole = self.database.check_integrity().map_err(|error| failure(&self.file, error))?;
        self.load()?;
        Ok(whole)
    }

    fn parsed<T: DeserializeOwned>(&self, what: &str, text: &str) -> Result<T, StoreError> {
        serde_json::from_str(text).map_err(|error| self.damaged(what, error))
    }

    fn damaged(&self, what: &str, reason: impl ToString) -> StoreError {
        StoreError::Damaged { file: self.file.clone(), what: what.to_owned(), reason: reason.to_string() }
    }

    fn failed(&self, error: impl Into<redb::Error>) -> StoreError {
        failure(&self.file, error)
    }
}

fn failure(file: &Path, error: impl Into<redb::Error>) -> StoreError {
    StoreError::Database { file: file.to_path_buf(), source: Box::new(error.into()) }
}

/// IAID, then DUID.
fn key_of(client: &Client) -> Vec<u8> {
    [&client.iaid.to_be_bytes()[..], client.duid.octets()].concat()
}

/// What has no keys but text cannot fail to be written.
fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
