//! A store that several boxes of one site share: a cluster (`etcd`) has it, each box has a copy.
//!
//! What is written goes to the cluster in one transaction that is done only if nobody else has written the same rows since
//! they were read. What others write is heard and told on ([`News::Changed`]). So an address can be one client's only, and a
//! lease that one box gave is served by the others.
//!
//! A box that cannot reach the cluster is *alone*: it goes on with what it knows, and writes into its copy. What it may give
//! to a client that has nothing yet is only what it reserved beforehand, which no other box can give ([`Entry::Reserve`]).
//! When the cluster is back all of it is read, what was written alone follows, and where somebody else wrote the same
//! `merge` says whose stands.
//!
//! No socket and no thread in here but those of [`etcd`]; a test runs it against a cluster in memory.

pub mod claim;
mod cluster;
mod copy;
mod documents;
pub mod etcd;
mod merge;
mod mirror;
mod plan;
mod reconcile;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use cluster::{Cluster, ClusterError, Done, Events, Row, Snapshot, Transaction};
pub use documents::{Document, NONCE_OCTETS, SEAL_OCTETS, Seal, TEXT_MAX, may_be_shared};
use mirror::{Edits, Known, Mirror};
use rows::Owner;

use super::storage::{Entry, News, Storage, Verdict};
use super::{Store, StoreError};
use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Change, Duid, Identity, Stored};

/// The version of the format of rows.
const VERSION: &str = "1";
/// Rows of one transaction: `etcd` takes 128 unless it is told otherwise.
const ROWS_PER_TRANSACTION: usize = 120;
/// Octets of one transaction: `etcd` takes 1.5 MiB (1,572,864) unless it is told otherwise.
const OCTETS_PER_TRANSACTION: usize = 1_400_000;
/// Rows that a store may have.
pub const ROWS_MAX: usize = 1 << 20;
/// How often a transaction is tried again that others were faster than.
const ATTEMPTS: u32 = 16;

/// What a box hears of the cluster.
#[derive(Clone, Debug)]
pub enum Heard {
    /// All there is, read by who writes; after it only what follows.
    All(Snapshot),
    /// The same, read by somebody else while this one may have written; with what [`Shared::tried`] was when reading began.
    Read(Snapshot, u64),
    /// What was written since.
    Since(Events),
    /// Nothing more, for this reason, until all is read again.
    Lost(String),
    /// The box's name is its own, or who else goes by it.
    Name(Option<String>),
}

/// A shared store, as one box has it.
pub struct Shared<C> {
    /// The box.
    node: String,
    /// Which box of that name, if anybody has said so.
    instance: Option<String>,
    cluster: C,
    copy: Store,
    mirror: Mirror,
    /// Why the cluster cannot be reached.
    alone: Option<String>,
    /// Whether the cluster that is reached is not the one we know, so that nothing of it counts.
    refused: bool,
    /// Whether it was told last that it cannot.
    told_alone: Option<bool>,
    news: Vec<News>,
    /// Of the last [`News::Changed`].
    told: u64,
    /// Transactions that came to an end, whatever that was.
    tried: Arc<AtomicU64>,
    /// Rows that the copy on disk has as not written yet. What became of them is on disk before anything else may follow:
    /// a box that forgot it would write them once more, although others have ended them since.
    owed: BTreeSet<String>,
}

impl<C: Cluster> Shared<C> {
    /// With the copy in `file`, which is made if it is not there. It is alone until it has heard of all there is.
    pub fn open(file: &Path, node: &str, cluster: C) -> Result<Shared<C>, StoreError> {
        Shared::with_copy(Store::open(file)?, node, cluster)
    }

    /// With a copy that is forgotten with it, for somebody who comes and goes.
    pub fn passing(node: &str, cluster: C) -> Result<Shared<C>, StoreError> {
        let name = std::path::PathBuf::from(cluster.name());
        Shared::with_copy(Store::in_memory(&name)?, node, cluster)
    }

    fn with_copy(copy: Store, node: &str, cluster: C) -> Result<Shared<C>, StoreError> {
        let (mirror, instance) = (copy.read_mirror()?, copy.read_instance()?);
        let owed = mirror.unwritten().map(|(key, _)| key.to_owned()).collect();
        let alone = Some("the cluster was not asked yet".to_owned());
        let (refused, told_alone) = (false, None);
        Ok(Shared {
            node: node.to_owned(),
            instance,
            cluster,
            copy,
            mirror,
            alone,
            refused,
            told_alone,
            news: Vec::new(),
            told: 0,
            tried: Arc::default(),
            owed,
        })
    }

    /// Which box this is: what its copy says, or `fresh`, and from then on. What is reserved is reserved for it, and not for
    /// whoever has the same name.
    pub fn identify(&mut self, fresh: &str) -> Result<String, StoreError> {
        let instance = self.copy.instance(fresh)?;
        self.instance = Some(instance.clone());
        Ok(instance)
    }

    /// Goes up with each transaction that was tried. Who reads everything in another thread looks at it before.
    pub fn tried(&self) -> Arc<AtomicU64> {
        self.tried.clone()
    }

    /// Counts on where another one, which was opened before, came to an end.
    pub fn counting(self, tried: Arc<AtomicU64>) -> Shared<C> {
        Shared { tried, ..self }
    }

    /// Why the cluster cannot be reached; nothing if it can.
    pub fn alone(&self) -> Option<&str> {
        self.alone.as_deref()
    }

    /// Rows that wait to be written to the cluster.
    pub fn unwritten(&self) -> usize {
        self.mirror.unwritten().count()
    }

    /// Makes the copy like what is known, in these rows. What the cluster has need not be on disk at once, unless the disk has it
    /// as something that the cluster does not know.
    fn keep<'k>(&mut self, keys: impl Iterator<Item = &'k str> + Clone, at_once: bool) -> Result<(), StoreError> {
        let at_once = at_once || keys.clone().any(|key| self.owed.contains(key));
        self.copy.write_mirror(&self.mirror, keys.clone(), at_once)?;
        for key in keys {
            match self.mirror.get(key).is_some_and(|known| known.base.is_some()) {
                true => _ = self.owed.insert(key.to_owned()),
                false => _ = self.owed.remove(key),
            }
        }
        Ok(())
    }

    /// The same for all rows that are not written any more because they are, or because others were right.
    fn keep_settled(&mut self) -> Result<(), StoreError> {
        let unwritten = |key: &&String| self.mirror.get(key).is_some_and(|known| known.base.is_some());
        let settled: Vec<String> = self.owed.iter().filter(|key| !unwritten(key)).cloned().collect();
        match settled.is_empty() {
            true => Ok(()),
            false => self.keep(settled.iter().map(String::as_str), true),
        }
    }

    fn go_alone(&mut self, reason: String) {
        if self.told_alone.replace(true) != Some(true) {
            self.news.push(News::Alone(Some(reason.clone())));
        }
        self.alone = Some(reason);
    }

    fn wrong(&self, reason: impl ToString) -> StoreError {
        StoreError::Cluster { name: self.cluster.name(), reason: reason.to_string() }
    }

    /// Takes in what the cluster says.
    fn take(&mut self, heard: Heard) -> Result<(), StoreError> {
        match heard {
            Heard::Lost(reason) => {
                self.go_alone(reason);
                Ok(())
            }
            Heard::Since(_) if self.refused => Ok(()),
            Heard::Since(events) => {
                if let Err(reason) = self.check_since(&events) {
                    self.refused = true;
                    self.go_alone(reason);
                    return Ok(());
                }
                let news = self.told + 1;
                let mut changed = Vec::new();
                for (key, value, revision) in &events.rows {
                    // What was changed here meanwhile is compared with all there is, when that comes.
                    let waits = self.mirror.get(key).is_some_and(|known| known.base.is_some());
                    if !waits && self.mirror.heard(key, value.as_deref(), *revision, news, false) {
                        changed.push(key.clone());
                    }
                }
                let mut touched: Vec<String> = events.rows.into_iter().map(|(key, ..)| key).collect();
                touched.extend(self.mirror.forget_gone(events.revision));
                self.keep(touched.iter().map(String::as_str), false)?;
                self.tell(&changed);
                Ok(())
            }
            Heard::Name(rival) => {
                let is_ours = rival.is_none();
                self.news.push(News::Name(rival));
                if is_ours && self.alone.is_none() { self.release_orphans() } else { Ok(()) }
            }
            Heard::All(snapshot) => self.take_all(&snapshot, false),
            Heard::Read(snapshot, tried) => {
                let is_old = self.tried.load(Ordering::SeqCst) != tried;
                self.take_all(&snapshot, is_old)
            }
        }
    }

    /// All there is, and then what was written here while it could not be heard.
    fn take_all(&mut self, snapshot: &Snapshot, is_old: bool) -> Result<(), StoreError> {
        if is_old && self.alone.is_some() {
            // It may be from before something we wrote, confirmed or not. It is read again, since nothing is written now.
            return Ok(());
        }
        self.refused = false;
        if let Err(reason) = self.check_all(snapshot) {
            self.refused = true;
            self.go_alone(reason);
            return Ok(());
        }
        // We wrote nothing since it was read, so what it says is so, whatever the cluster's revisions were before.
        let is_all = self.alone.is_some();
        let ours: Vec<(String, Known)> =
            self.mirror.unwritten().map(|(key, it)| (key.to_owned(), it.clone())).collect();
        let mine: BTreeSet<&str> = ours.iter().map(|(key, _)| key.as_str()).collect();
        let news = self.told + 1;
        let (mut changed, mut touched) = (Vec::new(), Vec::new());
        for row in snapshot.rows.iter().filter(|row| !mine.contains(row.key.as_str())) {
            let known = self.mirror.get(&row.key).map(|known| known.revision);
            if self.mirror.heard(&row.key, Some(&row.value), row.revision, news, is_all) {
                changed.push(row.key.clone());
            }
            if known != Some(row.revision) {
                touched.push(row.key.clone());
            }
        }
        for key in self.mirror.missing(&snapshot.rows).into_iter().filter(|key| !mine.contains(key.as_str())) {
            // Something written after the snapshot was taken is not missing.
            if self.mirror.heard(&key, None, snapshot.revision, news, is_all) {
                changed.push(key.clone());
                touched.push(key);
            }
        }
        touched.extend(self.mirror.forget_gone(snapshot.revision));
        self.keep(touched.iter().map(String::as_str), true)?;
        self.tell(&changed);
        self.alone = None;
        if self.told_alone.replace(false) != Some(false) {
            self.news.push(News::Alone(None));
        }
        self.reconcile(ours, snapshot)?;
        self.keep_settled()
    }

    /// Whether this is the store we know.
    fn check_all(&self, snapshot: &Snapshot) -> Result<(), String> {
        if snapshot.rows.len() > ROWS_MAX {
            return Err(format!("{} rows are more than the {ROWS_MAX} there may be", snapshot.rows.len()));
        }
        let at = |key: &str| snapshot.rows.iter().find(|row| row.key == key).map(|row| row.value.as_str());
        if let Some(version) = at(rows::VERSION).filter(|version| *version != VERSION) {
            return Err(format!("its rows are of version {version}; only {VERSION} is known here"));
        }
        // Hosts would be taken from a site whose cluster was emptied, or was mistaken for another one.
        match (self.mirror.value(rows::DUID), at(rows::DUID)) {
            (Some(_), None) => Err("it is empty, and was not; see \"store import\"".into()),
            (Some(known), Some(found)) if known != found => Err("it is another site's store".into()),
            _ => Ok(()),
        }
    }

    /// The same for what was written since: whoever empties the cluster, or makes it another site's, does not have hosts lose
    /// their addresses.
    fn check_since(&self, events: &Events) -> Result<(), String> {
        for (key, value, _) in &events.rows {
            let known = self.mirror.value(key);
            let about_site = key == rows::DUID || key == rows::VERSION;
            if about_site && known.is_some() && known != value.as_deref() {
                return Err(format!("{key} in it is another than before; see \"store import\""));
            }
        }
        Ok(())
    }

    /// Tells of rows as they are now. What is gone comes first, since something else may stand in its place.
    fn tell(&mut self, keys: &[String]) {
        let (mut gone, mut there) = (Vec::new(), Vec::new());
        for key in keys {
            match rows::change_of(key, self.mirror.value(key)) {
                Ok(Some(change @ (Change::Forget(_) | Change::Free(_)))) => gone.push(change),
                Ok(Some(change)) => there.push(change),
                Ok(None) => {}
                Err(()) => self.news.push(News::Unreadable(key.clone())),
            }
        }
        gone.extend(there);
        self.told += 1;
        for key in keys.iter().filter(|key| key.starts_with(rows::SITE)) {
            match rows::document_of(key, self.mirror.value(key)) {
                Some(document) => self.news.push(News::Document(document, self.told)),
                None => self.news.push(News::Unreadable(key.clone())),
            }
        }
        if !gone.is_empty() {
            self.news.push(News::Changed(gone, self.told));
        }
    }

    /// Gives back what is reserved for a box that had our name and is no more: it lost its copy, and with it what it was. Should
    /// it be there after all, it may give none of that to anybody any more.
    fn release_orphans(&mut self) -> Result<(), StoreError> {
        let ours = |owner: Option<Owner>| matches!(owner, Some(Owner::Reserved { by, .. }) if by == self.node);
        let orphan = |(_, value): &(&str, &str)| {
            rows::is_reserved(value) && ours(rows::owner_of(Some(value))) && !self.is_mine(Some(value))
        };
        let edits: Edits =
            self.mirror.under(rows::ADDRESSES).filter(orphan).map(|(key, _)| (key.to_owned(), None)).collect();
        if edits.is_empty() {
            return Ok(());
        }
        // What others change meanwhile is seen, and given back the next time.
        let done = self.transact(&edits);
        self.keep(edits.keys().map(String::as_str), false)?;
        if let Err(error) = done {
            self.go_alone(error.to_string());
        }
        Ok(())
    }

    /// Has the cluster do these edits. False if others were faster.
    fn transact(&mut self, edits: &Edits) -> Result<bool, ClusterError> {
        for part in plan::parts(edits) {
            let done = self.cluster.transact(&self.mirror.transaction(&part));
            self.tried.fetch_add(1, Ordering::SeqCst);
            match done? {
                Done::Applied(revision) => self.mirror.written(&part, revision),
                Done::Overtaken(revision, found) => {
                    let (news, mut changed) = (self.told + 1, Vec::new());
                    for key in part.keys() {
                        let row = found.iter().find(|row| row.key == *key);
                        let (value, at) = row.map_or((None, revision), |row| (Some(row.value.as_str()), row.revision));
                        if self.mirror.heard(key, value, at, news, false) {
                            changed.push(key.clone());
                        }
                    }
                    self.tell(&changed);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

impl<C: Cluster> Storage for Shared<C> {
    fn name(&self) -> String {
        self.cluster.name()
    }

    fn duid(&mut self, fresh: &Duid) -> Result<Duid, StoreError> {
        for _ in 0..ATTEMPTS {
            if let Some(known) = self.read_duid()? {
                return Ok(known);
            }
            if let Some(reason) = &self.alone {
                return Err(self.wrong(format!("{reason}, and nothing of it is known here yet")));
            }
            let edits: Edits = [
                (rows::DUID.to_owned(), Some(fresh.to_string())),
                (rows::VERSION.to_owned(), Some(VERSION.to_owned())),
            ]
            .into();
            self.transact(&edits).map_err(|error| self.wrong(error))?;
            self.keep(edits.keys().map(String::as_str), true)?;
        }
        Err(self.wrong("others are faster again and again"))
    }

    fn read_duid(&mut self) -> Result<Option<Duid>, StoreError> {
        let text = self.mirror.value(rows::DUID);
        text.map(|text| text.parse().map_err(|reason| self.wrong(format!("duid: {reason}")))).transpose()
    }

    fn load(&mut self) -> Result<Stored, StoreError> {
        let mut stored = Stored::default();
        let mut unreadable = Vec::new();
        for folder in [rows::LEASES, rows::QUARANTINE] {
            for (key, value) in self.mirror.under(folder) {
                match rows::change_of(key, Some(value)) {
                    Ok(Some(Change::Put(lease))) => stored.leases.push(lease),
                    Ok(Some(Change::Hold(held))) => stored.quarantine.push(held),
                    _ => unreadable.push(News::Unreadable(key.to_owned())),
                }
            }
        }
        self.news.extend(unreadable);
        Ok(stored)
    }

    fn published(&mut self) -> Result<Vec<String>, StoreError> {
        let names = self.mirror.under(rows::PUBLISHED);
        Ok(names.filter_map(|(key, _)| key.strip_prefix(rows::PUBLISHED).map(str::to_owned)).collect())
    }

    fn delegations(&mut self) -> Result<Vec<(String, Delegation)>, StoreError> {
        let rows = self.mirror.under(rows::DELEGATIONS);
        let read = |(key, value): (&str, &str)| {
            let name = key.strip_prefix(rows::DELEGATIONS)?;
            Some((name.to_owned(), serde_json::from_str(value).ok()?))
        };
        Ok(rows.filter_map(read).collect())
    }

    fn reserved(&mut self) -> Result<Vec<Identity>, StoreError> {
        let rows = self.mirror.under(rows::ADDRESSES);
        let mine = |(_, value): (&str, &str)| match rows::owner_of(Some(value)) {
            Some(Owner::Reserved { identity, .. }) if self.is_mine(Some(value)) => Some(identity),
            _ => None,
        };
        Ok(rows.filter_map(mine).collect())
    }

    fn documents(&mut self) -> Vec<Document> {
        self.mirror.under(rows::SITE).filter_map(|(key, value)| rows::document_of(key, Some(value))).collect()
    }

    fn write(&mut self, entries: &[Entry<'_>]) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(entries.len());
        let (mut most, mut attempts) = (usize::MAX, 0);
        while let Some(rest) = entries.get(verdicts.len()..).filter(|rest| !rest.is_empty()) {
            let plan = self.plan(rest, most);
            if !plan.edits.is_empty() && self.alone.is_none() {
                let done = self.transact(&plan.edits);
                // Of many rows some may be written although others are not.
                self.keep(plan.edits.keys().map(String::as_str), false)?;
                match done {
                    Ok(true) => {}
                    Ok(false) => {
                        // One at a time: it is that one's fault, and it is looked at again with what was found.
                        (most, attempts) = (1, attempts + 1);
                        if attempts > ATTEMPTS {
                            self.go_alone("others are faster again and again".into());
                        }
                        continue;
                    }
                    Err(error) => {
                        self.go_alone(error.to_string());
                        continue;
                    }
                }
            } else if !plan.edits.is_empty() {
                if self.mirror.len() + plan.edits.len() > ROWS_MAX {
                    return Err(self.wrong("there is no room for more rows"));
                }
                self.mirror.noted(&plan.edits);
                self.keep(plan.edits.keys().map(String::as_str), true)?;
            }
            if !plan.refused.is_empty() {
                self.tell(&plan.refused);
            }
            self.news.extend(plan.conflicts.into_iter().map(News::Conflict));
            let documents: Vec<String> = plan.edits.into_keys().filter(|key| key.starts_with(rows::SITE)).collect();
            if !documents.is_empty() {
                self.tell(&documents);
            }
            if !plan.stands.is_empty() {
                self.told += 1;
                self.news.push(News::Changed(plan.stands, self.told));
            }
            verdicts.extend(plan.verdicts);
            (most, attempts) = (usize::MAX, 0);
        }
        Ok(verdicts)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    fn is_refused(&self) -> bool {
        self.refused
    }

    fn hear(&mut self, heard: Heard) -> Result<(), StoreError> {
        self.take(heard)
    }

    fn news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }
}
