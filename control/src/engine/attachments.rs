//! What hangs on contexts, found by their place in the endpoint's table, who is on which path, and whose path is in doubt.
//!
//! When a path dies, all contexts on it look for another one, at a common pace. They are not counted up when it happens, which
//! would take long where they are many: the path is noted, and as the pace allows the first on its list is asked and goes to
//! the end of it. Who has been asked, or has come since, stands behind all others, so the first of those is the end.
//!
//! So it is when a provider goes down. There may be as many paths through it as contexts, so it is the provider that is noted, and its
//! paths are gone through one after the other. When it is back, nobody more is asked because of it.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use hashbrown::HashMap;

use super::context::Attached;
use crate::chains::Chains;
use crate::reap::PathKey;
use crate::shim6::ContextId;

/// What hangs on each context.
#[derive(Default)]
pub(super) struct Attachments {
    places: Vec<Option<Place>>,
    /// Contexts by the path they use, as their REAP machines know it.
    paths: Chains<PathKey>,
    /// The paths that have such, in order.
    ordered: BTreeSet<PathKey>,
    len: usize,
    /// Times something came to be in doubt.
    doubts: u64,
    /// What is in doubt.
    doubted: HashMap<Doubt, Doubted>,
    /// The same in the order of their turns.
    queue: VecDeque<Doubt>,
}

/// What may not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doubt {
    Path(PathKey),
    /// All paths through a provider, by the prefix it delegated.
    Provider([u8; 8]),
}

#[derive(Clone, Copy, Debug)]
struct Doubted {
    /// Since which of the times.
    since: u64,
    /// Of a provider, the last path whose contexts have all been asked.
    done: Option<PathKey>,
}

struct Place {
    id: ContextId,
    attached: Box<Attached>,
}

impl Attachments {
    pub(super) fn get(&self, id: &ContextId) -> Option<&Attached> {
        let place = self.places.get(id.index())?.as_ref().filter(|place| place.id == *id)?;
        Some(&place.attached)
    }

    /// To be followed by [`Attachments::settle`] if the machine is changed.
    pub(super) fn get_mut(&mut self, id: &ContextId) -> Option<&mut Attached> {
        let place = self.places.get_mut(id.index())?.as_mut().filter(|place| place.id == *id)?;
        Some(&mut place.attached)
    }

    /// What hangs on a context that is there, new if it is.
    pub(super) fn get_or_default(&mut self, id: ContextId) -> &mut Attached {
        if self.places.len() <= id.index() {
            self.places.resize_with(id.index() + 1, || None);
        }
        if self.get(&id).is_none() {
            self.remove_at(id.index());
            self.len += 1;
        }
        let place = &mut self.places[id.index()];
        &mut place.get_or_insert_with(|| Place { id, attached: Box::default() }).attached
    }

    pub(super) fn remove(&mut self, id: &ContextId) {
        if self.get(id).is_some() {
            self.remove_at(id.index());
        }
    }

    fn remove_at(&mut self, at: usize) {
        let Some(place) = self.places.get_mut(at).and_then(Option::take) else { return };
        self.settle_path(at as u32, place.attached.path, None);
        self.len -= 1;
    }

    fn settle_path(&mut self, at: u32, old: Option<PathKey>, new: Option<PathKey>) {
        self.paths.settle(at, old, new);
        if let Some(old) = old.filter(|old| self.paths.count(*old) == 0) {
            self.ordered.remove(&old);
        }
        if let Some(new) = new.filter(|new| self.paths.count(*new) == 1) {
            self.ordered.insert(new);
        }
    }

    /// Puts a context where its machine is now.
    pub(super) fn settle(&mut self, id: ContextId) {
        let Some(place) = self.places.get_mut(id.index()).and_then(Option::as_mut).filter(|place| place.id == id)
        else {
            return;
        };
        let path = place.attached.reap.as_ref().map(|reap| PathKey::of(reap.current()));
        let old = std::mem::replace(&mut place.attached.path, path);
        if old != path {
            place.attached.asked = self.doubts;
            self.settle_path(id.index() as u32, old, path);
        }
    }

    /// The context in a place of the table.
    pub(super) fn id_at(&self, index: u32) -> Option<ContextId> {
        self.places.get(index as usize)?.as_ref().map(|place| place.id)
    }

    /// How many contexts have something.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The paths that contexts use, in no order, and how many use each.
    pub(super) fn paths(&self) -> impl Iterator<Item = (PathKey, usize)> {
        self.paths.keys()
    }

    /// The contexts on a path.
    pub(super) fn on_path(&self, path: PathKey) -> impl Iterator<Item = ContextId> {
        self.paths.iter(path).filter_map(|place| self.id_at(place))
    }

    /// How many paths are in use.
    pub(super) fn paths_in_use(&self) -> usize {
        self.paths.lists()
    }

    /// Whoever is on this path is to be asked whether it works for him, but for `witness`, who knows.
    pub(super) fn doubt(&mut self, path: PathKey, witness: Option<ContextId>) {
        self.note(Doubt::Path(path));
        if let Some(witness) = witness {
            self.asked(witness);
        }
    }

    /// Whoever is on a path through the provider that delegated this prefix is to be asked.
    pub(super) fn doubt_provider(&mut self, prefix: [u8; 8]) {
        self.note(Doubt::Provider(prefix));
    }

    /// The provider works again: nobody more is asked because of it.
    pub(super) fn trust_provider(&mut self, prefix: [u8; 8]) {
        let doubt = Doubt::Provider(prefix);
        if self.doubted.remove(&doubt).is_some() {
            self.queue.retain(|other| *other != doubt);
        }
    }

    fn note(&mut self, doubt: Doubt) {
        self.doubts += 1;
        if self.doubted.insert(doubt, Doubted { since: self.doubts, done: None }).is_none() {
            self.queue.push_back(doubt);
        }
    }

    /// Who is to be asked next, as far as that is found in so many looks, which are taken from `looks`.
    pub(super) fn next_in_doubt(&mut self, looks: &mut usize) -> Option<ContextId> {
        while let Some(doubt) = self.queue.front().copied() {
            *looks = looks.checked_sub(1)?;
            let doubted = self.doubted.get(&doubt).copied();
            let path = doubted.and_then(|doubted| self.path_in_doubt(doubt, doubted));
            let since = doubted.map_or(0, |doubted| doubted.since);
            let first = path.and_then(|path| self.places.get(self.paths.first(path)? as usize)?.as_ref());
            if let Some(place) = first.filter(|place| place.attached.asked < since) {
                return Some(place.id);
            }
            match (doubt, self.doubted.get_mut(&doubt)) {
                (Doubt::Provider(_), Some(doubted)) if path.is_some() => doubted.done = path,
                _ => {
                    self.doubted.remove(&doubt);
                    self.queue.pop_front();
                }
            }
        }
        None
    }

    /// The path in doubt whose contexts are asked now.
    fn path_in_doubt(&self, doubt: Doubt, doubted: Doubted) -> Option<PathKey> {
        let local = match doubt {
            Doubt::Path(path) => return Some(path),
            Doubt::Provider(local) => local,
        };
        let first = Bound::Included(PathKey { local, peer: [0; 8] });
        let next = self.ordered.range((doubted.done.map_or(first, Bound::Excluded), Bound::Unbounded)).next();
        next.copied().filter(|path| path.local == local)
    }

    /// He has been asked, or need not be.
    pub(super) fn asked(&mut self, id: ContextId) {
        let doubts = self.doubts;
        let Some(attached) = self.get_mut(&id) else { return };
        attached.asked = doubts;
        if let Some(path) = attached.path {
            let at = id.index() as u32;
            self.paths.leave(path, at);
            self.paths.join(path, at);
        }
    }

    /// Whether somebody on this path has still to be asked.
    pub(super) fn is_in_doubt(&self, path: PathKey) -> bool {
        let doubts = [Doubt::Path(path), Doubt::Provider(path.local)];
        doubts.iter().any(|doubt| self.doubted.contains_key(doubt))
    }

    /// Paths and providers whose contexts have not all been asked.
    pub(super) fn in_doubt(&self) -> usize {
        self.queue.len()
    }
}
