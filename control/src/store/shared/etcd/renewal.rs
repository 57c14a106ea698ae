//! Certificates and a password that take the place of others while conversations go on.

use std::sync::{Arc, Mutex, PoisonError};

use super::Client;
use crate::config::cluster::Access;

/// What gives all conversations of some [`Settings`](super::Settings) other files.
#[derive(Clone, Default)]
pub struct Renewal(Arc<Mutex<Newest>>);

#[derive(Default)]
struct Newest {
    /// Goes up with each.
    number: u64,
    access: Option<Access>,
}

impl Renewal {
    /// From now on connections are opened with these, and those that are open are closed before they are used again. Nothing
    /// happens if they say the same as before.
    pub fn renew(&self, access: &Access) {
        let mut newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.access.as_ref().is_none_or(|known| known.print != access.print) {
            newest.number += 1;
            newest.access = Some(access.clone());
        }
    }

    fn number(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).number
    }

    fn after(&self, number: u64) -> Option<(u64, Access)> {
        let newest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Some((newest.number, newest.access.clone()?)).filter(|(found, _)| *found != number)
    }

    /// With what was read first, of which nobody has to be told.
    pub(super) fn knowing(access: Access) -> Renewal {
        Renewal(Arc::new(Mutex::new(Newest { number: 0, access: Some(access) })))
    }
}

impl Client {
    /// Whether there are other files than those by which what is open was opened.
    pub fn is_outdated(&self) -> bool {
        self.settings.renewal.number() != self.renewed
    }

    /// Takes them.
    pub(super) fn take_newest(&mut self) {
        if let Some((number, Access { tls, user, .. })) = self.settings.renewal.after(self.renewed) {
            (self.renewed, self.connection, self.token) = (number, None, None);
            (self.settings.tls, self.settings.user) = (tls, user);
        }
    }
}
