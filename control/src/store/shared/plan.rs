//! What is to be written comes to which rows, and whether that is safe.

use std::net::Ipv6Addr;

use super::merge::{Outcome, merge};
use super::mirror::Edits;
use super::rows::{self, Owner};
use super::{Cluster, Document, OCTETS_PER_TRANSACTION, ROWS_PER_TRANSACTION, Shared};
use crate::dhcp::{Change, Held};
use crate::store::json;
use crate::store::storage::{Entry, Verdict};

/// What entries come to.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) edits: Edits,
    pub(super) verdicts: Vec<Verdict>,
    /// What stands of leases that others had changed too, and has to be told for that.
    pub(super) stands: Vec<Change>,
    pub(super) conflicts: Vec<String>,
    /// Rows of what is refused: whoever decided on it believes it, and has to hear how they are.
    pub(super) refused: Vec<String>,
}

/// What a row takes of a transaction: its key stands in it three times, to be compared, written, and read otherwise.
fn octets(key: &str, value: Option<&str>) -> usize {
    const AROUND: usize = 64;
    3 * key.len() + value.map_or(0, str::len) + AROUND
}

fn octets_of(edits: &Edits) -> usize {
    edits.iter().map(|(key, value)| octets(key, value.as_deref())).sum()
}

/// Edits in as many parts as it takes, each of which the cluster takes at once. What goes in parts is not all or nothing.
pub(super) fn parts(edits: &Edits) -> Vec<Edits> {
    let (mut parts, mut last, mut size) = (Vec::new(), Edits::new(), 0);
    for (key, value) in edits {
        let more = octets(key, value.as_deref());
        if !last.is_empty() && (last.len() >= ROWS_PER_TRANSACTION || size + more > OCTETS_PER_TRANSACTION) {
            parts.push(std::mem::take(&mut last));
            size = 0;
        }
        size += more;
        last.insert(key.clone(), value.clone());
    }
    parts.extend((!last.is_empty()).then_some(last));
    parts
}

/// A row that is too long for any transaction is not written.
fn fit(edits: &Edits) -> Result<(), String> {
    let fits = |(key, value): &(&String, &Option<String>)| octets(key, value.as_deref()) <= OCTETS_PER_TRANSACTION;
    match edits.iter().find(|edit| !fits(edit)) {
        Some((key, _)) => Err(format!("{key} is too long for the cluster")),
        None => Ok(()),
    }
}

impl<C: Cluster> Shared<C> {
    /// What the first of these entries come to, as many as go into one transaction; one at least.
    pub(super) fn plan(&self, entries: &[Entry<'_>], most: usize) -> Plan {
        let mut plan = Plan::default();
        for entry in entries.iter().take(most) {
            let mut edits = Edits::new();
            let (stands, conflicts) = (plan.stands.len(), plan.conflicts.len());
            let planned = self.plan_one(entry, &mut plan, &mut edits).and_then(|()| fit(&edits));
            let verdict = match planned {
                Ok(()) => Verdict::Written,
                Err(reason) => Verdict::Refused(reason),
            };
            if verdict != Verdict::Written {
                plan.refused.extend(std::mem::take(&mut edits).into_keys());
                plan.stands.truncate(stands);
                plan.conflicts.truncate(conflicts);
            }
            let both = plan.edits.keys().filter(|key| edits.contains_key(*key)).count();
            let rows = plan.edits.len() + edits.len() - both;
            let octets = octets_of(&plan.edits) + octets_of(&edits);
            let fits = rows <= ROWS_PER_TRANSACTION && octets <= OCTETS_PER_TRANSACTION;
            if !fits && !plan.verdicts.is_empty() {
                plan.stands.truncate(stands);
                plan.conflicts.truncate(conflicts);
                return plan;
            }
            plan.edits.extend(edits);
            plan.verdicts.push(verdict);
        }
        // A row that was never heard of may be there all the same.
        plan.edits.retain(|key, value| self.mirror.get(key).is_none_or(|known| known.value != *value));
        plan
    }

    fn plan_one(&self, entry: &Entry<'_>, plan: &mut Plan, edits: &mut Edits) -> Result<(), String> {
        match entry {
            Entry::Changes(changes, seen) => self.plan_changes(changes, *seen, plan, edits),
            Entry::Published(name, there) => {
                edits.insert(format!("{}{name}", rows::PUBLISHED), there.then(String::new));
                Ok(())
            }
            Entry::Delegation(name, delegation) => {
                edits.insert(format!("{}{name}", rows::DELEGATIONS), delegation.map(json));
                Ok(())
            }
            Entry::Document(name, text, seen) => {
                let key = format!("{}{name}", rows::SITE);
                let known = self.mirror.get(&key);
                let before = rows::document_of(&key, self.mirror.value(&key));
                let was = before.as_ref().map_or(0, |document| document.version);
                let (name, text, by) = ((*name).to_owned(), text.clone(), self.node.clone());
                // What nobody has heard of yet is still the same change.
                let waits = known.is_some_and(|known| known.base.is_some());
                let version = if waits { was } else { was + 1 };
                let late = known.is_some_and(|known| known.news > *seen);
                if before.as_ref().is_none_or(|it| it.text != text) {
                    edits.insert(key, Some(json(&Document { name, version, by, text })));
                }
                match before.filter(|_| late && !edits.is_empty()) {
                    Some(first) => Err(format!("{} {} is of box {}, which was first", first.name, was, first.by)),
                    None => Ok(()),
                }
            }
            Entry::Reserve(identity) => {
                let key = rows::address_key(identity.ulid);
                if self.alone.is_some() {
                    return Err("nothing can be reserved while the cluster cannot be reached".into());
                }
                let ours = rows::reserved_for(&self.node, self.instance.as_deref(), identity);
                match self.mirror.value(&key) {
                    // It was done, and the answer was lost.
                    Some(row) if rows::owner_of(Some(row)) == rows::owner_of(Some(&ours)) => Ok(()),
                    Some(_) => Err(format!("{} is somebody's", identity.ulid)),
                    None => {
                        edits.insert(key, Some(ours));
                        Ok(())
                    }
                }
            }
            Entry::Release(ulid) => {
                let key = rows::address_key(*ulid);
                if self.is_mine(self.mirror.value(&key)) {
                    edits.insert(key, None);
                }
                Ok(())
            }
        }
    }

    /// Whether a row says that this box may give what it is about.
    pub(super) fn is_mine(&self, row: Option<&str>) -> bool {
        let Some(Owner::Reserved { by, instance, .. }) = rows::owner_of(row) else { return false };
        // Before boxes told themselves apart it was the name alone.
        by == self.node && (instance.is_none() || instance == self.instance)
    }

    fn plan_changes(&self, changes: &[Change], seen: u64, plan: &mut Plan, edits: &mut Edits) -> Result<(), String> {
        let mut declined = Vec::new();
        for change in changes {
            let value = |edits: &Edits, key: &str| -> Option<String> {
                let planned = edits.get(key).or_else(|| plan.edits.get(key));
                planned.cloned().unwrap_or_else(|| self.mirror.value(key).map(str::to_owned))
            };
            match change {
                Change::Put(lease) => {
                    let key = rows::lease_key(&lease.client);
                    let old = rows::lease_of(&key, value(edits, &key).as_deref());
                    if let Some(old) = old.filter(|old| old.identity.ulid != lease.identity.ulid) {
                        edits.insert(rows::address_key(old.identity.ulid), None);
                    }
                    edits.insert(rows::address_key(lease.identity.ulid), Some(rows::owned_by(&lease.client)));
                    edits.insert(key, Some(json(lease)));
                }
                Change::Forget(client) => {
                    let key = rows::lease_key(client);
                    if let Some(old) = rows::lease_of(&key, value(edits, &key).as_deref()) {
                        edits.insert(rows::address_key(old.identity.ulid), None);
                    }
                    edits.insert(key, None);
                }
                Change::Hold(held) => {
                    declined.extend(held.declined.then_some(held.ulid));
                    let key = rows::held_key(held.ulid);
                    let longest = rows::held_of(&key, value(edits, &key).as_deref()).filter(|it| it.until > held.until);
                    // Nobody's setting or clock makes shorter what somebody else wants to be kept.
                    let held = match longest {
                        Some(longest) => {
                            let held = Held { declined: longest.declined || held.declined, ..longest };
                            plan.stands.push(Change::Hold(held.clone()));
                            held
                        }
                        None => held.clone(),
                    };
                    edits.insert(key, Some(json(&held)));
                }
                Change::Free(ulid) => {
                    let key = rows::held_key(*ulid);
                    // Somebody else may hold it longer.
                    if self.mirror.get(&key).is_none_or(|known| known.news <= seen) {
                        edits.insert(key, None);
                    }
                }
            }
        }
        self.contest(seen, &declined, plan, edits)?;
        self.check_owners(plan, edits)
    }

    /// What becomes of leases that somebody else has changed and who decided did not know of.
    fn contest(&self, seen: u64, declined: &[Ipv6Addr], plan: &mut Plan, edits: &mut Edits) -> Result<(), String> {
        let contested = |key: &&String| {
            key.starts_with(rows::LEASES) && self.mirror.get(key).is_some_and(|known| known.news > seen)
        };
        for key in edits.keys().filter(contested).cloned().collect::<Vec<_>>() {
            let theirs = rows::lease_of(&key, self.mirror.value(&key));
            let ours = rows::lease_of(&key, edits.get(&key).and_then(|value| value.as_deref()));
            match merge(theirs.as_ref(), ours.as_ref(), declined) {
                Outcome::Ours => {
                    plan.stands
                        .extend(rows::change_of(&key, edits.get(&key).and_then(|it| it.as_deref())).ok().flatten());
                }
                Outcome::Theirs => {
                    for lease in theirs.iter().chain(&ours) {
                        edits.remove(&rows::address_key(lease.identity.ulid));
                    }
                    edits.remove(&key);
                    if theirs != ours {
                        plan.conflicts.push(format!("{key}: what another box wrote stands"));
                    }
                }
                Outcome::Refused => {
                    let theirs = theirs.map(|lease| lease.identity.ulid.to_string()).unwrap_or_default();
                    return Err(format!("{key} has {theirs} from another box"));
                }
            }
        }
        Ok(())
    }

    /// An address is given only if it is nobody's, its client's already, or kept for this box; alone, only if one of the
    /// latter two is known.
    fn check_owners(&self, plan: &Plan, edits: &Edits) -> Result<(), String> {
        for (key, owner) in edits.iter().filter(|(key, _)| key.starts_with(rows::ADDRESSES)) {
            let Some(client) = owner.as_deref() else { continue };
            let planned = plan.edits.get(key).cloned();
            let now = planned.unwrap_or_else(|| self.mirror.value(key).map(str::to_owned));
            let good = match now.as_deref() {
                None => self.alone.is_none(),
                Some(row) => row == client || self.is_mine(Some(row)),
            };
            if !good {
                let address = key.trim_start_matches(rows::ADDRESSES);
                return Err(match (&self.alone, now) {
                    (Some(_), None) => format!("{address} was not reserved before the cluster was lost"),
                    _ => format!("{address} is somebody else's"),
                });
            }
        }
        Ok(())
    }
}
