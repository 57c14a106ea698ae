//! A box's name is one box's. What is reserved for a name may be given by whoever goes by it while the cluster cannot be
//! reached, so two boxes of one name could give one address twice.
//!
//! A box *claims* its name: a row that lives for as long as the box says so (a lease of `etcd`). It says which box that is (an
//! instance: a number that its copy of the store has) and which of its processes. The next process of the same instance takes
//! the row over at once; another box has to wait until nobody says anything any more.

use serde::{Deserialize, Serialize};

use super::etcd::Client;
use super::{ClusterError, rows};
use crate::store::json;

/// How long a claim lives without its box in seconds.
pub const LIFE_S: u64 = 15;
/// How often a claim is tried that others were faster than.
const ATTEMPTS: u32 = 3;

/// What the row says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    instance: String,
    process: String,
    /// What its operator calls the machine.
    machine: String,
}

/// One process's claim on its box's name.
#[derive(Clone, Debug)]
pub struct Claim {
    name: String,
    said: Said,
    lease: Option<String>,
    /// Whether it was ours since the process began.
    held: bool,
}

impl Claim {
    /// For the box `name` of this `instance`. Nobody else's `process` is called like this one; `machine` is for people.
    pub fn new(name: &str, instance: String, process: String, machine: String) -> Claim {
        Claim { name: name.to_owned(), said: Said { instance, process, machine }, lease: None, held: false }
    }

    /// Makes the claim, or keeps it: to be called more often than every [`LIFE_S`]. Who else goes by the name at this moment, in
    /// words.
    ///
    /// # Errors
    /// The cluster's.
    pub fn hold(&mut self, client: &mut Client) -> Result<Option<String>, ClusterError> {
        let lease = match self.lease.take() {
            Some(lease) if client.keep(&lease)? => lease,
            _ => client.grant(LIFE_S)?,
        };
        self.lease = Some(lease.clone());
        let key = rows::claim_key(&self.name);
        for _ in 0..ATTEMPTS {
            let found = client.find(&key)?;
            let (guard, kept_by) = found.as_ref().map_or((0, None), |(row, by)| (row.revision, Some(by)));
            let theirs = found.as_ref().map(|(row, _)| serde_json::from_str::<Said>(&row.value).ok());
            match theirs {
                Some(Some(said)) if said == self.said && kept_by == Some(&lease) => {
                    self.held = true;
                    return Ok(None);
                }
                // Under a lease of ours that has not ended yet, or of our process before this one.
                Some(Some(said)) if said == self.said || (said.instance == self.said.instance && !self.held) => {}
                Some(said) => return Ok(Some(self.rival(said))),
                None => {}
            }
            if client.put_under(&key, guard, &json(&self.said), &lease)? {
                self.held = true;
                return Ok(None);
            }
        }
        Err(ClusterError::Strange(format!("{key}: others are faster again and again")))
    }

    fn rival(&self, said: Option<Said>) -> String {
        let name = &self.name;
        match said {
            Some(said) if said.instance == self.said.instance => {
                format!(
                    "a box on {} has a copy of this one's store.file, and goes by box.name \"{name}\" too",
                    said.machine
                )
            }
            Some(said) => format!("another box, on {}, goes by box.name \"{name}\" too", said.machine),
            None => format!("box.name \"{name}\" is claimed by something else"),
        }
    }

    /// Ends it, so that nobody has to wait for it to end.
    pub fn give_up(&mut self, client: &mut Client) {
        if let Some(lease) = self.lease.take() {
            let _ = client.revoke(&lease);
        }
    }
}
