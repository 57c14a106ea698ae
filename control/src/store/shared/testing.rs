//! A cluster in memory that several boxes share, and that fails when a test wants it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::{Cluster, ClusterError, Done, Events, Row, Snapshot, Transaction};

/// A row that is there or was, and its last revision.
type Rows = BTreeMap<String, (Option<String>, u64)>;

#[derive(Debug, Default)]
struct State {
    revision: u64,
    rows: Rows,
    log: Vec<(String, Option<String>, u64)>,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

/// What becomes of the next questions of one box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Line {
    /// They are answered.
    #[default]
    Whole,
    /// They are lost.
    Cut,
    /// They are done, and the answer is lost.
    Deaf,
}

/// One box's line to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wire {
    memory: Memory,
    line: Arc<Mutex<Line>>,
}

impl Memory {
    /// A box's.
    pub(crate) fn wire(&self) -> Wire {
        Wire { memory: self.clone(), line: Arc::default() }
    }

    /// Everything, whatever becomes of lines.
    pub(crate) fn all(&self) -> Snapshot {
        let state = self.0.lock().unwrap();
        let there = |(key, (value, revision)): (&String, &(Option<String>, u64))| {
            Some(Row { key: key.clone(), value: value.clone()?, revision: *revision })
        };
        Snapshot { revision: state.revision, rows: state.rows.iter().filter_map(there).collect() }
    }

    /// What was written after a revision.
    pub(crate) fn since(&self, revision: u64) -> Events {
        let state = self.0.lock().unwrap();
        let rows = state.log.iter().filter(|(.., at)| *at > revision).cloned().collect();
        Events { revision: state.revision, rows }
    }
}

impl Wire {
    /// What becomes of what is asked from now on.
    pub(crate) fn set(&self, line: Line) {
        *self.line.lock().unwrap() = line;
    }

    /// What becomes of what is asked now.
    pub(crate) fn line(&self) -> Line {
        *self.line.lock().unwrap()
    }
}

impl Cluster for Wire {
    fn name(&self) -> String {
        "a cluster in memory".into()
    }

    fn transact(&mut self, transaction: &Transaction) -> Result<Done, ClusterError> {
        let line = self.line();
        if line == Line::Cut {
            return Err(ClusterError::Unreachable("cut".into()));
        }
        assert!(transaction.rows.len() <= 128, "{} rows", transaction.rows.len());
        let octets =
            |(key, _, value): &(String, u64, Option<String>)| 3 * key.len() + value.as_ref().map_or(0, String::len);
        let octets: usize = transaction.rows.iter().map(octets).sum();
        assert!(octets <= 1536 * 1024, "{octets} octets");
        let mut state = self.memory.0.lock().unwrap();
        let revision_of = |rows: &Rows, key: &String| match rows.get(key) {
            Some((Some(_), revision)) => *revision,
            _ => 0,
        };
        let done = if transaction.rows.iter().all(|(key, known, _)| revision_of(&state.rows, key) == *known) {
            state.revision += 1;
            let revision = state.revision;
            for (key, _, value) in &transaction.rows {
                let was_there = matches!(state.rows.get(key), Some((Some(_), _)));
                // As `etcd` does: to delete what is not there is nothing.
                if value.is_some() || was_there {
                    state.rows.insert(key.clone(), (value.clone(), revision));
                    state.log.push((key.clone(), value.clone(), revision));
                }
            }
            Done::Applied(revision)
        } else {
            let found = transaction.rows.iter().filter_map(|(key, ..)| {
                let (value, revision) = state.rows.get(key)?;
                Some(Row { key: key.clone(), value: value.clone()?, revision: *revision })
            });
            Done::Overtaken(state.revision, found.collect())
        };
        if line == Line::Deaf { Err(ClusterError::Unreachable("deaf".into())) } else { Ok(done) }
    }
}
