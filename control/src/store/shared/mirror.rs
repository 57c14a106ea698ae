//! What a box knows of a shared store, row by row.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::cluster::{Row, Transaction};

/// A row, as far as it is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// What it says; nothing if it is not there.
    pub(super) value: Option<String>,
    /// The revision that made it so.
    pub(super) revision: u64,
    /// Changed here while the cluster could not be reached: the revision the cluster had of it then, 0 if there was none.
    pub(super) base: Option<u64>,
    /// The number of the news that told of it last, if somebody else wrote it.
    pub(super) news: u64,
}

/// All rows. One that was deleted stays for as long as the cluster may still tell of what was before.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    rows: BTreeMap<String, Known>,
    /// Deleted rows among them, by the revision that did it.
    gone: BTreeMap<u64, Vec<String>>,
}

/// What is to become of rows, by their keys.
pub(super) type Edits = BTreeMap<String, Option<String>>;

impl Mirror {
    pub(super) fn get(&self, key: &str) -> Option<&Known> {
        self.rows.get(key)
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.rows.get(key)?.value.as_deref()
    }

    pub(super) fn put(&mut self, key: String, known: Known) {
        self.rows.insert(key, known);
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Rows that are there and whose keys begin like this.
    pub(super) fn under<'m>(&'m self, folder: &'m str) -> impl Iterator<Item = (&'m str, &'m str)> {
        let range = (Bound::Included(folder), Bound::Unbounded);
        let rows = self.rows.range::<str, _>(range).take_while(move |(key, _)| key.starts_with(folder));
        rows.filter_map(|(key, known)| Some((key.as_str(), known.value.as_deref()?)))
    }

    /// Rows that were changed while the cluster could not be reached.
    pub(super) fn unwritten(&self) -> impl Iterator<Item = (&str, &Known)> {
        self.rows.iter().filter(|(_, known)| known.base.is_some()).map(|(key, known)| (key.as_str(), known))
    }

    /// What a cluster has to be asked for these edits.
    pub(super) fn transaction(&self, edits: &Edits) -> Transaction {
        let guard = |key: &str| match self.rows.get(key) {
            Some(known) => known.base.unwrap_or(if known.value.is_some() { known.revision } else { 0 }),
            None => 0,
        };
        Transaction { rows: edits.iter().map(|(key, value)| (key.clone(), guard(key), value.clone())).collect() }
    }

    /// The cluster has done these edits.
    pub(super) fn written(&mut self, edits: &Edits, revision: u64) {
        for (key, value) in edits {
            let news = self.rows.get(key).map_or(0, |known| known.news);
            self.settle(key, value.clone(), revision, news);
        }
    }

    /// These edits are done here alone.
    pub(super) fn noted(&mut self, edits: &Edits) {
        for (key, value) in edits {
            let known = self.rows.entry(key.clone()).or_default();
            let of_cluster = if known.value.is_some() { known.revision } else { 0 };
            known.base.get_or_insert(of_cluster);
            known.value.clone_from(value);
        }
    }

    /// The cluster says how a row is; if that may be old, it counts only if it is younger than what is known. Whether it is
    /// other than that.
    pub(super) fn heard(&mut self, key: &str, value: Option<&str>, revision: u64, news: u64, is_all: bool) -> bool {
        let known = self.rows.get(key);
        if !is_all && known.is_some_and(|known| revision <= known.revision && known.base.is_none()) {
            return false;
        }
        let differs = known.and_then(|known| known.value.as_deref()) != value;
        let news = if differs { news } else { known.map_or(0, |known| known.news) };
        self.settle(key, value.map(str::to_owned), revision, news);
        differs
    }

    fn settle(&mut self, key: &str, value: Option<String>, revision: u64, news: u64) {
        if value.is_none() {
            self.gone.entry(revision).or_default().push(key.to_owned());
        }
        self.rows.insert(key.to_owned(), Known { value, revision, base: None, news });
    }

    /// The cluster will tell of nothing before this revision any more. The rows that are forgotten by it.
    pub(super) fn forget_gone(&mut self, revision: u64) -> Vec<String> {
        let later = self.gone.split_off(&(revision + 1));
        let gone = std::mem::replace(&mut self.gone, later);
        let mut forgotten: Vec<String> = gone.into_values().flatten().collect();
        forgotten.retain(|key| {
            let gone = |known: &Known| known.value.is_none() && known.base.is_none() && known.revision <= revision;
            self.rows.get(key).is_some_and(gone)
        });
        for key in &forgotten {
            self.rows.remove(key);
        }
        forgotten
    }

    /// What is here and not among these rows, which are all there are.
    pub(super) fn missing(&self, rows: &[Row]) -> Vec<String> {
        let there = |key: &String| rows.binary_search_by(|row| row.key.as_str().cmp(key)).is_ok();
        let here = self.rows.iter().filter(|(_, known)| known.value.is_some()).map(|(key, _)| key);
        here.filter(|key| !there(key)).cloned().collect()
    }
}
