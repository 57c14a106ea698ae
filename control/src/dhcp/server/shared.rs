//! Several servers of one link that share their store, and go by one name (RFC 8415 §18.3: to clients they are one).

use std::net::Ipv6Addr;

use super::super::lease::{Change, Client, Lease, State};
use super::super::message::Ia;
use super::{Output, Server};

impl Server {
    /// Whether the other servers cannot be heard. Then a client without an address gets the one that it was offered here and
    /// asks for by name, and no other: the others hear it too and have not offered that one.
    pub fn set_alone(&mut self, alone: bool) {
        self.alone = alone;
    }

    /// Whether another server may be giving the client something else at this moment.
    pub(super) fn may_be_elsewhere(&self, client: &Client, ia: &Ia) -> bool {
        let offered = self.offers.get(client).map(|(_, identity)| identity.ulid);
        self.alone && !offered.is_some_and(|offered| ia.addresses.contains(&offered))
    }

    /// Another server wrote this, or what this one wrote came to this. It is so from now on; nothing has to be written.
    pub fn take_in(&mut self, change: Change, out: &mut Vec<Output>) {
        match change {
            Change::Put(lease) => self.take_in_lease(lease, out),
            Change::Forget(client) => {
                if let Some(old) = self.book.drop_client(&client) {
                    out.extend((old.state == State::Bound).then_some(Output::Withdraw(old.identity.ulid)));
                }
            }
            Change::Hold(held) => {
                let is_free = |address: &Ipv6Addr| self.book.owner(*address).is_none();
                // Whoever has one of them is told of later, or is right.
                if held.locators.iter().chain([&held.ulid]).all(is_free) {
                    self.book.hold(held);
                }
            }
            Change::Free(ulid) => self.book.free(ulid),
        }
    }

    fn take_in_lease(&mut self, lease: Lease, out: &mut Vec<Output>) {
        let old = self.book.get(&lease.client).cloned();
        if old.as_ref() == Some(&lease) {
            return;
        }
        // Nobody can have its addresses but who lost them by the same change.
        for address in lease.identity.addresses() {
            let other = self.book.owner(address).filter(|other| other.client != lease.client).cloned();
            if let Some(other) = other {
                self.book.drop_client(&other.client);
                out.extend((other.state == State::Bound).then_some(Output::Withdraw(other.identity.ulid)));
            }
            self.book.free_address(address);
        }
        let stays = |old: &Lease| lease.state == State::Bound && old.identity.ulid == lease.identity.ulid;
        if let Some(old) = old.filter(|old| old.state == State::Bound && !stays(old)) {
            out.push(Output::Withdraw(old.identity.ulid));
        }
        // An offer it had is nobody's now, and good for the next one.
        if let Some(identity) = self.take_offer(&lease.client)
            && identity.ulid != lease.identity.ulid
        {
            self.reserve.push_back(identity);
        }
        self.reserve.retain(|identity| identity.ulid != lease.identity.ulid);
        self.book.put(lease.clone(), &self.config);
        if lease.state == State::Bound {
            out.push(Output::Serve(lease));
        }
    }
}
