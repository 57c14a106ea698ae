//! What hangs on contexts, found by their place in the endpoint's table, who is on which path, and whose path is in doubt.
//!
//! When a path dies, all contexts on it look for another one, at a common pace. They are not counted up when it happens, which
//! would take long where they are many: the path is noted, and as the pace allows the first on its list is asked and goes to
//! the end of it. Who has been asked, or has come since, stands behind all others, so the first of those is the end.

use std::collections::VecDeque;

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
    len: usize,
    /// Times a path came to be in doubt.
    doubts: u64,
    /// The paths in doubt, and since which of those times.
    doubted: HashMap<PathKey, u64>,
    /// The same in the order of their turns.
    queue: VecDeque<PathKey>,
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
        self.paths.settle(at as u32, place.attached.path, None);
        self.len -= 1;
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
            self.paths.settle(id.index() as u32, old, path);
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
        self.doubts += 1;
        if self.doubted.insert(path, self.doubts).is_none() {
            self.queue.push_back(path);
        }
        if let Some(witness) = witness {
            self.asked(witness);
        }
    }

    /// Who is to be asked next.
    pub(super) fn next_in_doubt(&mut self) -> Option<ContextId> {
        while let Some(path) = self.queue.front() {
            let since = self.doubted.get(path).copied().unwrap_or(u64::MAX);
            let first = self.paths.first(*path).and_then(|at| self.places.get(at as usize)?.as_ref());
            if let Some(place) = first.filter(|place| place.attached.asked < since) {
                return Some(place.id);
            }
            self.doubted.remove(path);
            self.queue.pop_front();
        }
        None
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
        self.doubted.contains_key(&path)
    }

    /// Paths whose contexts have not all been asked.
    pub(super) fn in_doubt(&self) -> usize {
        self.queue.len()
    }
}
