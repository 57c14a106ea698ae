//! What becomes of each identity association (RFC 8415 §18.3).

use std::net::Ipv6Addr;

use super::super::book::Refusal;
use super::super::lease::{Change, Client, Lease, State};
use super::super::message::{Fqdn, Ia, IaKind, Kind, Status};
use super::super::options;
use super::{Asked, GRACE, Outcome, Server, Told, Work};
use crate::time::Instant;

impl Server {
    /// §18.3.9: what the client would get.
    pub(super) fn offer(&mut self, now: Instant, asked: &Asked<'_>, ia: &Ia, work: &mut Work) -> Outcome {
        if let Some(outcome) = not_ours(ia, asked.request.kind) {
            return outcome;
        }
        let client = Client { duid: asked.client.clone(), iaid: ia.iaid };
        let known = self.book.get(&client).filter(|lease| self.config.on_link(lease.identity.ulid));
        let wall = self.wall(now);
        let lifetime = self.lifetime(wall, asked.request.kind, known);
        let is_bound = known.is_some_and(|lease| lease.state == State::Bound);
        if let Some(lease) = known {
            work.name = Some(lease.name.clone());
        }
        let known = known.map(|lease| lease.identity.ulid).filter(|_| !self.book.is_unfit(&client));
        if !is_bound && let Err(refusal) = self.book.may_bind(&self.config, &client, asked.via, asked.relayed) {
            return refused(client, asked.via, refusal, work);
        }
        let Some(address) = known.or_else(|| self.offered(wall, &client)) else { return starved(work) };
        Outcome::Lease { address, valid: lifetime, dead: Vec::new() }
    }

    /// What becomes of an association by a message that may change it.
    pub(super) fn associate(&mut self, now: Instant, asked: &Asked<'_>, ia: &Ia, work: &mut Work) -> Outcome {
        let kind = asked.request.kind;
        if let Some(outcome) = not_ours(ia, kind) {
            return outcome;
        }
        let client = Client { duid: asked.client.clone(), iaid: ia.iaid };
        let known = self.book.get(&client).filter(|lease| self.config.on_link(lease.identity.ulid));
        let bound = known.filter(|lease| lease.state == State::Bound).map(|lease| lease.identity.ulid);
        let foreign = ia.addresses.iter().any(|address| !self.config.on_link(*address));
        match kind {
            Kind::Release | Kind::Decline => match bound {
                Some(address) if ia.addresses.contains(&address) => {
                    self.end(now, &client, kind == Kind::Decline, work);
                    Outcome::Done
                }
                Some(_) => Outcome::Done,
                None => Outcome::Status(Status::NoBinding, "no such lease"),
            },
            Kind::Request if foreign => Outcome::Status(Status::NotOnLink, "not of this link"),
            Kind::Rebind if known.is_none() && foreign => {
                Outcome::Dead(ia.addresses.iter().filter(|it| !self.config.on_link(**it)).copied().collect())
            }
            // Others may know it who did not answer in time; only where one server answers a Solicit it is ours to give.
            Kind::Rebind if known.is_none() && !self.config.rapid_commit => {
                Outcome::Status(Status::NoBinding, "no such lease")
            }
            _ => self.bind(now, asked, client, ia, work),
        }
    }

    /// The client has its address from now on, or longer.
    pub(super) fn bind(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        client: Client,
        ia: &Ia,
        work: &mut Work,
    ) -> Outcome {
        let wall = self.wall(now);
        let Asked { via, relayed, .. } = *asked;
        let known = self.book.get(&client).filter(|lease| self.config.on_link(lease.identity.ulid)).cloned();
        let was_bound = known.as_ref().is_some_and(|lease| lease.state == State::Bound);
        if !was_bound && let Err(refusal) = self.book.may_bind(&self.config, &client, via, relayed) {
            return refused(client, via, refusal, work);
        }
        let is_new = known.is_none();
        let valid = self.lifetime(wall, asked.request.kind, known.as_ref());
        let old_name = known.as_ref().map(|lease| lease.name.clone());
        let identity = match known.filter(|_| !self.book.is_unfit(&client)) {
            Some(lease) => lease.identity,
            None if self.may_be_elsewhere(&client, ia) => return alone(work),
            None => {
                let Some(identity) = self.take_offer(&client).or_else(|| self.fresh()) else { return starved(work) };
                identity
            }
        };
        if self.book.is_unfit(&client) {
            // Peers may still know it by what it had.
            work.changes.extend(self.book.forget(&client, &self.config, wall, false));
        }
        if is_new {
            work.changes.extend(self.book.make_room(&self.config, wall));
        }
        // A client of another link's prefix starts anew here.
        let stale = self.book.get(&client).filter(|lease| lease.identity.ulid != identity.ulid);
        if stale.is_some_and(|lease| lease.state == State::Bound) {
            work.withdraw.extend(stale.map(|lease| lease.identity.ulid));
        }
        let name = self.name_for(&client, asked.request.name.as_ref(), identity.ulid, old_name);
        let until = wall + u64::from(valid) + GRACE;
        let address = identity.ulid;
        let lease =
            Lease { client: client.clone(), name: name.clone(), identity, state: State::Bound, until, via, relayed };
        if !was_bound {
            work.told.push(Told::Bound(client.clone(), name.clone(), address));
        }
        work.name.get_or_insert(name);
        self.book.put(lease.clone(), &self.config);
        work.changes.push(Change::Put(lease));
        work.serve.push((client, address));
        let asks_again = matches!(asked.request.kind, Kind::Renew | Kind::Rebind);
        let dead = ia.addresses.iter().filter(|it| asks_again && **it != address).copied().collect();
        Outcome::Lease { address, valid, dead }
    }

    /// §18.3.7, §18.3.8: a lease ends by its client's own wish.
    pub(super) fn end(&mut self, now: Instant, client: &Client, declined: bool, work: &mut Work) {
        let wall = self.wall(now);
        let Some(lease) = self.book.get(client).cloned() else { return };
        work.withdraw.push(lease.identity.ulid);
        if declined {
            work.told.push(Told::Declined(client.clone(), lease.identity.ulid));
            work.changes.extend(self.book.forget(client, &self.config, wall, true));
            return;
        }
        work.changes.extend(self.book.make_room(&self.config, wall));
        work.told.push(Told::Released(lease.name.clone(), lease.identity.ulid));
        let lease = Lease { state: State::Former, until: wall, ..lease };
        self.book.put(lease.clone(), &self.config);
        work.changes.push(Change::Put(lease));
    }

    /// For how long a client has its address. When more than half of the places are taken that is a short time for one
    /// that comes, whatever it says and however often, until half of that is over and it extends its lease. Nobody's
    /// becomes shorter by it.
    fn lifetime(&self, wall: u64, kind: Kind, known: Option<&Lease>) -> u32 {
        let (valid, trial) = (self.config.valid, self.config.trial.min(self.config.valid));
        if !self.book.is_crowded(&self.config) {
            return valid;
        }
        let bound = known.filter(|lease| lease.state == State::Bound);
        let left = bound.map(|lease| lease.until.saturating_sub(wall.saturating_add(GRACE)));
        let stayed = matches!(kind, Kind::Renew | Kind::Rebind);
        match left {
            Some(left) if left > u64::from(trial) => valid,
            Some(left) if stayed && left <= u64::from(trial.div_ceil(2)) => valid,
            Some(_) | None => trial,
        }
    }

    /// What a host is called: as the operator says, as it was called, as it calls itself, or after its address.
    pub(super) fn name_for(
        &self,
        client: &Client,
        wish: Option<&Fqdn>,
        address: Ipv6Addr,
        old: Option<String>,
    ) -> String {
        let is_free = |name: &String| {
            let others = self.book.named(name).is_some_and(|owner| owner != client);
            !others && !self.foreign_names.contains(name)
        };
        let reserved = self.config.reserved(&client.duid, client.iaid).map(|it| it.name.clone());
        let is_reserved = |name: &String| self.config.reservations.iter().any(|it| it.name == *name);
        let wish = wish.and_then(|wish| options::sanitised(&wish.label));
        let numbered = wish.iter().flat_map(|name| (2..10).map(move |number| format!("{name:.60}-{number}")));
        let wishes = old.iter().cloned().chain(wish.iter().cloned()).chain(numbered);
        let wishes = wishes.filter(|name| !is_reserved(name));
        let by_address = format!("h-{:016x}", address.to_bits() as u64);
        reserved.into_iter().chain(wishes).find(is_free).unwrap_or(by_address)
    }
}

/// What is said to an association that gets no address whatever happens.
fn not_ours(ia: &Ia, kind: Kind) -> Option<Outcome> {
    let none = match ia.kind {
        IaKind::Na => return None,
        _ if matches!(kind, Kind::Release | Kind::Decline) => (Status::NoBinding, "no such lease"),
        IaKind::Ta => (Status::NoAddrsAvail, "no temporary addresses here"),
        IaKind::Pd => (Status::NoPrefixAvail, "no prefixes here"),
    };
    Some(Outcome::Status(none.0, none.1))
}

fn refused(client: Client, via: Ipv6Addr, refusal: Refusal, work: &mut Work) -> Outcome {
    work.told.push(Told::Refused(client, via, refusal));
    Outcome::Status(Status::NoAddrsAvail, "no address left")
}

fn alone(work: &mut Work) -> Outcome {
    work.alone = true;
    Outcome::Status(Status::NoAddrsAvail, "no address at present")
}

fn starved(work: &mut Work) -> Outcome {
    work.starved = true;
    Outcome::Status(Status::NoAddrsAvail, "no address is ready yet")
}
