//! Addresses and context tags of hosts that are gone, kept from others for a while.
//!
//! A peer does not hear that a host is gone (RFC 5533 §1.5 discards contexts without a word, §9), so its box goes on
//! sending to the identifier and the locators it knows, and asks for the context again when we say that we have none
//! (§7.5). Were the addresses another host's by then, that host would get a session that is not its own. So nobody but
//! the host they belonged to may have them until no peer can have a context left (proxy note 11 of the specification).

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use dataplane::wire::ethernet::Mac;
use dataplane::wire::{ContextTag, Ulid};
use hashbrown::{HashMap, HashSet};

use crate::time::Instant;

/// Who has an address, as far as anybody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// CGA parameters of the host's identifier.
    pub pds: Option<Vec<u8>>,
    /// The host's link-layer address.
    pub link: Option<Mac>,
}

impl Owner {
    /// Whether nothing known of the two says that they differ.
    fn may_be(&self, other: &Owner) -> bool {
        let other_link = self.link.zip(other.link).is_some_and(|(ours, theirs)| ours != theirs);
        let other_pds = self.pds.as_ref().zip(other.pds.as_ref()).is_some_and(|(ours, theirs)| ours != theirs);
        !other_link && !other_pds
    }
}

/// An address that may not be given away yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The host it belonged to.
    pub ulid: Ulid,
    /// Who that was.
    pub owner: Arc<Owner>,
    /// Until when it is that host's alone.
    pub until: Instant,
}

impl Held {
    /// The rule: until the time is over, an address of a host that is gone is for the host whose it was.
    pub fn admits(&self, claimant: &Owner, now: Instant) -> bool {
        self.until <= now || self.owner.may_be(claimant)
    }
}

/// What hosts that are gone have left behind. Bounded: beyond [`Quarantine::ADDRESSES_MAX`] addresses or
/// [`Quarantine::TAGS_MAX`] tags the one that would be free first is free at once, and counted.
#[derive(Debug, Default)]
pub struct Quarantine {
    held: HashMap<Ipv6Addr, Held>,
    by_end: BTreeSet<(Instant, Ipv6Addr)>,
    tags: HashSet<ContextTag>,
    tags_by_end: BTreeSet<(Instant, ContextTag)>,
    crowded_out: u64,
}

impl Quarantine {
    /// Most addresses: those of some sixteen thousand hosts with fifteen providers.
    pub const ADDRESSES_MAX: usize = 1 << 18;
    /// Most tags.
    pub const TAGS_MAX: usize = 1 << 20;

    /// Whether `claimant` may have `address`; otherwise whose it was and until when it stays so.
    pub fn admits(&self, now: Instant, address: Ipv6Addr, claimant: &Owner) -> Result<(), &Held> {
        dataplane::mutant!(ForgetQuarantine, return Ok(()));
        match self.held.get(&address) {
            Some(held) if !held.admits(claimant, now) => Err(held),
            _ => Ok(()),
        }
    }

    /// A host is gone: its addresses are nobody else's for `time`.
    pub(super) fn hold(
        &mut self,
        now: Instant,
        time: Duration,
        ulid: Ulid,
        owner: Owner,
        addresses: impl Iterator<Item = Ipv6Addr>,
    ) {
        let held = Held { ulid, owner: Arc::new(owner), until: now + time };
        for address in addresses {
            if let Some(before) = self.held.insert(address, held.clone()) {
                self.by_end.remove(&(before.until, address));
            }
            self.by_end.insert((held.until, address));
            if self.held.len() > Self::ADDRESSES_MAX
                && let Some((_, first)) = self.by_end.pop_first()
            {
                self.held.remove(&first);
                self.crowded_out += 1;
            }
        }
    }

    /// The host with this identifier is back: its own addresses are not kept from it, whatever link-layer address it has now.
    pub(super) fn lift(&mut self, ulid: Ulid, addresses: impl Iterator<Item = Ipv6Addr>) {
        for address in addresses {
            if let Some(held) = self.held.get(&address).filter(|held| held.ulid == ulid) {
                self.by_end.remove(&(held.until, address));
                self.held.remove(&address);
            }
        }
    }

    /// A context of such a host is gone: its tag is no other context's for `time`.
    pub(super) fn hold_tag(&mut self, now: Instant, time: Duration, tag: ContextTag) {
        if self.tags.insert(tag) {
            self.tags_by_end.insert((now + time, tag));
        }
        if self.tags.len() > Self::TAGS_MAX
            && let Some((_, first)) = self.tags_by_end.pop_first()
        {
            self.tags.remove(&first);
            self.crowded_out += 1;
        }
    }

    /// Whether a tag may not be given to a context yet.
    pub(super) fn holds_tag(&self, tag: ContextTag) -> bool {
        self.tags.contains(&tag)
    }

    /// Forgets what is over.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((_, address)) = self.by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.by_end.pop_first();
            self.held.remove(&address);
        }
        while let Some((_, tag)) = self.tags_by_end.first().copied().filter(|(until, _)| *until <= now) {
            self.tags_by_end.pop_first();
            self.tags.remove(&tag);
        }
    }

    /// When there is something to forget.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let ends = [self.by_end.first().map(|(at, _)| *at), self.tags_by_end.first().map(|(at, _)| *at)];
        ends.into_iter().flatten().min()
    }

    /// The addresses held, in the order in which they become free.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv6Addr, &Held)> {
        self.by_end.iter().filter_map(|(_, address)| Some((*address, self.held.get(address)?)))
    }

    /// Number of tags held.
    pub fn tags(&self) -> usize {
        self.tags.len()
    }

    /// Addresses and tags that became free early for want of room.
    pub fn crowded_out(&self) -> u64 {
        self.crowded_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(900);

    fn owner(pds: u8, link: Option<u8>) -> Owner {
        Owner { pds: Some(vec![pds; 40]), link: link.map(|last| Mac([2, 0, 0, 0, 0, last])) }
    }

    fn address(last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    #[test]
    fn only_the_host_it_was_may_have_an_address_until_its_time_is_over() {
        let mut quarantine = Quarantine::default();
        let (old, ulid) = (owner(1, Some(1)), Ulid(address(0)));
        quarantine.hold(at(0), TIME, ulid, old.clone(), [address(0), address(1)].into_iter());
        for free in [old.clone(), owner(1, None), Owner::default(), Owner { pds: None, ..old.clone() }] {
            assert_eq!(quarantine.admits(at(1), address(1), &free), Ok(()), "{free:?}");
        }
        for foreign in [owner(2, Some(1)), owner(1, Some(2)), owner(2, None), Owner { pds: None, ..owner(1, Some(2)) }]
        {
            let held = quarantine.admits(at(899), address(1), &foreign).unwrap_err();
            assert_eq!((held.ulid, held.until), (ulid, at(900)), "{foreign:?}");
            assert_eq!(quarantine.admits(at(900), address(1), &foreign), Ok(()));
            assert_eq!(quarantine.admits(at(1), address(2), &foreign), Ok(()), "nobody had it");
        }
        assert_eq!((quarantine.iter().count(), quarantine.deadline()), (2, Some(at(900))));
        quarantine.expire(at(900));
        assert_eq!((quarantine.iter().count(), quarantine.deadline()), (0, None));
    }

    #[test]
    fn who_goes_again_is_waited_for_again() {
        let mut quarantine = Quarantine::default();
        quarantine.hold(at(0), TIME, Ulid(address(0)), owner(1, None), [address(0)].into_iter());
        quarantine.hold(at(100), TIME, Ulid(address(0)), owner(1, None), [address(0)].into_iter());
        quarantine.expire(at(950));
        assert!(quarantine.admits(at(950), address(0), &owner(2, None)).is_err());
        quarantine.expire(at(1000));
        assert_eq!(quarantine.iter().count(), 0);
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut quarantine = Quarantine::default();
        let many = (0..Quarantine::ADDRESSES_MAX as u128 + 10).map(Ipv6Addr::from_bits);
        quarantine.hold(at(0), TIME, Ulid(address(0)), owner(1, None), many);
        assert_eq!((quarantine.iter().count(), quarantine.crowded_out()), (Quarantine::ADDRESSES_MAX, 10));
        for tag in 0..=Quarantine::TAGS_MAX as u64 {
            quarantine.hold_tag(at(0), TIME, ContextTag::truncate(tag));
        }
        assert_eq!((quarantine.tags(), quarantine.crowded_out()), (Quarantine::TAGS_MAX, 11));
    }

    #[test]
    fn tags_rest_as_long() {
        let mut quarantine = Quarantine::default();
        let tag = ContextTag::truncate(7);
        quarantine.hold_tag(at(0), TIME, tag);
        quarantine.expire(at(899));
        assert!(quarantine.holds_tag(tag));
        quarantine.expire(at(900));
        assert!(!quarantine.holds_tag(tag));
    }
}
