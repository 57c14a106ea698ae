//! What a store of either kind does for the thread that owns it.

use std::net::Ipv6Addr;

use super::shared::{Document, Heard};
use super::{Export, ExportError, Store, StoreError};
use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Change, Duid, Identity, Stored};

/// Something to be written: all of it or nothing.
#[derive(Clone, Debug)]
pub enum Entry<'a> {
    /// Changes of leases and quarantine. The number is that of the last [`News::Changed`] that who decided on them had
    /// heard of.
    Changes(&'a [Change], u64),
    /// A name that may be in DNS from now on, or is there no more.
    Published(String, bool),
    /// What a provider delegated, if anything.
    Delegation(&'a str, Option<&'a Delegation>),
    /// An identity that only this box may give to a client from now on.
    Reserve(&'a Identity),
    /// One that it will give to nobody.
    Release(Ipv6Addr),
    /// A file of the operator's says this from now on, or is there no more. The number is that of the last
    /// [`News::Document`] or [`News::Changed`] that was heard of.
    Document(&'a str, Option<String>, u64),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is written.
    Written,
    /// It is not and will not be: somebody else was first, or it is not safe now.
    Refused(String),
}

/// What others made of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Another box wrote this; the number goes up with each.
    Changed(Vec<Change>, u64),
    /// A file that boxes share says this now; the number goes up with each.
    Document(Document, u64),
    /// Nobody else can be heard, and why; or they can again.
    Alone(Option<String>),
    /// Both this box and another one had changed the same; what is said is what became of it.
    Conflict(String),
    /// The box's name is its own, or who else goes by it.
    Name(Option<String>),
    /// A row that cannot be read was passed over.
    Unreadable(String),
}

/// What is kept for a box, wherever that is.
pub trait Storage: Send {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// The name the DHCPv6 server goes by; `fresh` if it has none yet, and from then on.
    fn duid(&mut self, fresh: &Duid) -> Result<Duid, StoreError>;

    /// The name the DHCPv6 server goes by, if it has one yet.
    fn read_duid(&mut self) -> Result<Option<Duid>, StoreError>;

    /// Leases and quarantine.
    fn load(&mut self) -> Result<Stored, StoreError>;

    /// Names that may be in DNS.
    fn published(&mut self) -> Result<Vec<String>, StoreError>;

    /// What providers delegated, by their names.
    fn delegations(&mut self) -> Result<Vec<(String, Delegation)>, StoreError>;

    /// Identities that this box alone may give to clients.
    fn reserved(&mut self) -> Result<Vec<Identity>, StoreError> {
        Ok(Vec::new())
    }

    /// Writes entries in order. After an error none, some or all of them are written, each of them whole or not at all; to
    /// write them again does no harm.
    fn write(&mut self, entries: &[Entry<'_>]) -> Result<Vec<Verdict>, StoreError>;

    /// Files that boxes share, as they were heard of last.
    fn documents(&mut self) -> Vec<Document> {
        Vec::new()
    }

    /// Whether identities have to be reserved before they are given.
    fn is_shared(&self) -> bool {
        false
    }

    /// Whether others that share it cannot be heard.
    fn is_alone(&self) -> bool {
        false
    }

    /// Whether what is reached is not the store we know, so that all of it has to be read again before anything of it counts.
    fn is_refused(&self) -> bool {
        false
    }

    /// Takes in what the cluster says, if there is one.
    fn hear(&mut self, heard: Heard) -> Result<(), StoreError> {
        drop(heard);
        Ok(())
    }

    /// What there is to be told since this was asked last.
    fn news(&mut self) -> Vec<News> {
        Vec::new()
    }

    /// Everything in it.
    fn export(&mut self) -> Result<Export, StoreError> {
        let stored = self.load()?;
        Ok(Export { version: super::VERSION, server: self.read_duid()?, stored })
    }

    /// Takes an export into an empty store; all of it or nothing, as far as a store can do that.
    fn import(&mut self, export: &Export) -> Result<(), ExportError> {
        let stored = self.load()?;
        export.fits(&stored)?;
        let leases = export.stored.leases.iter().cloned().map(Change::Put);
        let changes: Vec<Change> = leases.chain(export.stored.quarantine.iter().cloned().map(Change::Hold)).collect();
        if let Some(server) = &export.server {
            // First: a store with leases has the name they were given under.
            let known = self.duid(server)?;
            if known != *server {
                return Err(ExportError::Server(known));
            }
        }
        for verdict in self.write(&[Entry::Changes(&changes, u64::MAX)])? {
            if let Verdict::Refused(reason) = verdict {
                return Err(ExportError::Refused(reason));
            }
        }
        Ok(())
    }
}

impl Storage for Store {
    fn name(&self) -> String {
        self.file().display().to_string()
    }

    fn duid(&mut self, fresh: &Duid) -> Result<Duid, StoreError> {
        Store::duid(self, fresh)
    }

    fn read_duid(&mut self) -> Result<Option<Duid>, StoreError> {
        Store::read_duid(self)
    }

    fn load(&mut self) -> Result<Stored, StoreError> {
        Store::load(self)
    }

    fn published(&mut self) -> Result<Vec<String>, StoreError> {
        Store::published(self)
    }

    fn delegations(&mut self) -> Result<Vec<(String, Delegation)>, StoreError> {
        Store::delegations(self)
    }

    fn write(&mut self, entries: &[Entry<'_>]) -> Result<Vec<Verdict>, StoreError> {
        let delegations = entries.iter().filter_map(|entry| match entry {
            Entry::Delegation(name, delegation) => Some((*name, *delegation)),
            _ => None,
        });
        let delegations: Vec<_> = delegations.collect();
        if !delegations.is_empty() {
            self.commit_delegations(delegations)?;
        }
        let changes = entries.iter().flat_map(|entry| match entry {
            Entry::Changes(changes, _) => *changes,
            _ => &[],
        });
        let published = entries.iter().filter_map(|entry| match entry {
            Entry::Published(name, there) => Some((name.clone(), *there)),
            _ => None,
        });
        if entries.iter().any(|entry| matches!(entry, Entry::Changes(..) | Entry::Published(..))) {
            self.commit_with(changes, published)?;
        }
        // Who has a store alone needs no reservations.
        Ok(vec![Verdict::Written; entries.len()])
    }
}
