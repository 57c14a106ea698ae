//! A box that was alone and is not any more: what it wrote meanwhile, against what others did.

use super::mirror::Known;
use super::{Cluster, Shared, Snapshot, rows};
use crate::dhcp::client::Stored as Delegation;
use crate::dhcp::{Change, Held, Identity, Lease};
use crate::store::StoreError;
use crate::store::storage::{Entry, News, Storage, Verdict};

impl<C: Cluster> Shared<C> {
    /// Writes what was written alone, as far as it stands.
    pub(super) fn reconcile(&mut self, ours: Vec<(String, Known)>, snapshot: &Snapshot) -> Result<(), StoreError> {
        let (mut calm, mut contested, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        let number = self.told + 1;
        for (key, known) in ours {
            let at = snapshot.rows.binary_search_by(|row| row.key.as_str().cmp(&key));
            let theirs = at.ok().and_then(|at| snapshot.rows.get(at));
            let is_contested = known.base != Some(theirs.map_or(0, |row| row.revision));
            let news = if is_contested { number } else { 0 };
            let revision = theirs.map_or(snapshot.revision, |row| row.revision);
            let value = theirs.map(|row| row.value.clone());
            let lease = rows::lease_of(&key, known.value.as_deref());
            let before = Known { value, revision, base: None, news };
            self.mirror.put(key.clone(), before);
            if let Some(document) = rows::document_of(&key, known.value.as_deref()) {
                documents.push((document, is_contested));
            } else if is_contested && key.starts_with(rows::LEASES) {
                contested.push((key, lease));
            } else {
                calm.push((key, known));
            }
        }
        self.told += 1;
        let changes: Vec<Vec<Change>> =
            calm.iter().filter_map(|(key, it)| Some(vec![rows::change_of(key, it.value.as_deref()).ok()??])).collect();
        let mut entries: Vec<Entry<'_>> = changes.iter().map(|changes| Entry::Changes(changes, 0)).collect();
        let other = |folder: &'static str| {
            let rows = calm.iter().filter_map(move |(key, it)| Some((key.strip_prefix(folder)?, it.value.as_deref())));
            rows.collect::<Vec<_>>()
        };
        entries.extend(
            other(rows::PUBLISHED).into_iter().map(|(name, it)| Entry::Published(name.to_owned(), it.is_some())),
        );
        let delegations: Vec<(&str, Option<Delegation>)> = other(rows::DELEGATIONS)
            .into_iter()
            .map(|(name, it)| (name, it.and_then(|text| serde_json::from_str(text).ok())))
            .collect();
        entries.extend(delegations.iter().map(|(name, it)| Entry::Delegation(name, it.as_ref())));
        // What somebody else writes just now is settled as everything is; only who was told otherwise has to hear of it.
        let verdicts = Storage::write(self, &entries)?;
        for (changes, verdict) in changes.iter().zip(verdicts) {
            if let (Verdict::Refused(reason), Some(Change::Put(lease))) = (verdict, changes.first()) {
                self.lost(lease, &reason)?;
            }
        }
        for (document, is_contested) in documents {
            let entry = Entry::Document(&document.name, document.text.clone(), 0);
            if let [Verdict::Refused(reason)] = &Storage::write(self, &[entry])?[..] {
                self.news.push(News::Conflict(reason.clone()));
            } else if is_contested {
                self.tell(&[format!("{}{}", rows::SITE, document.name)]);
            }
        }
        contested.into_iter().try_for_each(|(key, lease)| self.settle(&key, lease))
    }

    /// A lease that was changed alone, while somebody else changed it too.
    fn settle(&mut self, key: &str, ours: Option<Lease>) -> Result<(), StoreError> {
        let theirs = self.mirror.value(key).map(str::to_owned);
        let Some(change) = ours.clone().map(Change::Put).or_else(|| rows::change_of(key, None).ok().flatten()) else {
            return Ok(());
        };
        let verdicts = Storage::write(self, &[Entry::Changes(&[change], 0)])?;
        if let (Some(Verdict::Refused(reason)), Some(lease)) = (verdicts.first(), &ours) {
            return self.lost(lease, reason);
        }
        if self.mirror.value(key) == theirs.as_deref() {
            self.tell(&[key.to_owned()]);
        }
        Ok(())
    }

    /// A lease that its client was told of is not true: somebody else was first. Its addresses are kept from everybody for as
    /// long as the client may believe in them.
    fn lost(&mut self, lease: &Lease, reason: &str) -> Result<(), StoreError> {
        self.news.push(News::Conflict(reason.to_owned()));
        self.tell(&[rows::lease_key(&lease.client)]);
        let Identity { ulid, locators, .. } = lease.identity.clone();
        let held = Change::Hold(Held { ulid, locators, until: lease.until, declined: false });
        let held = [held];
        Storage::write(self, &[Entry::Release(ulid), Entry::Changes(&held, u64::MAX)])?;
        self.tell(&[rows::held_key(ulid)]);
        Ok(())
    }
}
