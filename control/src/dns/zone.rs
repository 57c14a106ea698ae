//! The site's own names: hosts' names forward and their CMULAs backward, whether they are configured or come and go.
//!
//! Only what the box knows itself is answered here: addresses and ULID records of names it serves, and pointers of their
//! addresses. Everything else below the same zone (its mail, its public web servers) is asked upstream as ever.

use std::net::Ipv6Addr;

use dataplane::snapshot::Block;
use dataplane::wire::Ulid;
use hashbrown::{HashMap, HashSet};

use super::compose::{self, Data};
use super::message::Answer;
use super::name::Name;
use super::view::{IN, Question, kind};

/// How long hosts may keep the site's own names, in seconds: their addresses stay, but hosts come and go.
const TTL: u32 = 60;

/// The site's own names.
#[derive(Clone, Debug, Default)]
pub struct Zone {
    origin: Option<Name>,
    ulid_kind: u16,
    forward: HashMap<Name, Vec<Ulid>>,
    backward: HashMap<Ipv6Addr, Name>,
    own: HashSet<Ulid>,
    /// Every name there is because a host has it, or one below it.
    known: HashSet<Name>,
    /// Hosts whose name is none in DNS.
    unnamed: usize,
    /// Answers made so far; of names and addresses that are there, so there are not many.
    made: HashMap<Question, Answer>,
}

impl Zone {
    /// Names below `origin`; there are none without.
    pub fn new(origin: Option<Name>, ulid_kind: u16) -> Zone {
        Zone { origin, ulid_kind, ..Zone::default() }
    }

    /// These hosts are served from now on, and no others. A name is one label or several below the zone, or a whole one
    /// that lies in it. Hosts may share a name; each address has the first of its names.
    pub fn set_names<'a>(&mut self, hosts: impl IntoIterator<Item = (&'a str, Ulid)>) {
        (self.forward, self.backward, self.own, self.unnamed) = Default::default();
        self.known.clear();
        self.made.clear();
        for (text, ulid) in hosts {
            self.own.insert(ulid);
            let Some(origin) = &self.origin else { continue };
            let Some(name) = named(text, origin) else {
                self.unnamed += 1;
                continue;
            };
            self.backward.entry(ulid.0).or_insert_with(|| name.clone());
            let above =
                std::iter::successors(Some(name.clone()), |name| name.parent().filter(|it| it.is_within(origin)));
            self.known.extend(above);
            let ulids = self.forward.entry(name).or_default();
            if !ulids.contains(&ulid) {
                ulids.push(ulid);
            }
        }
    }

    /// The zone.
    pub fn origin(&self) -> Option<&Name> {
        self.origin.as_ref()
    }

    /// Names and hosts without one.
    pub fn names(&self) -> (usize, usize) {
        (self.forward.len(), self.unnamed)
    }

    /// Whether an identifier is one of the site's hosts'.
    pub fn serves(&self, ulid: Ulid) -> bool {
        self.own.contains(&ulid)
    }

    /// The hosts of a name.
    pub fn ulids(&self, name: &Name) -> Option<&[Ulid]> {
        self.forward.get(name).map(Vec::as_slice)
    }

    /// Whether there is such a name, whatever others say: then it has no records of other types, rather than that it does not
    /// exist (RFC 8020).
    pub fn has(&self, name: &Name) -> bool {
        self.known.contains(name) || name.address().is_some_and(|address| self.backward.contains_key(&address))
    }

    /// The answer to a question about the site's own names or addresses; none if others have to be asked.
    pub fn answer(&mut self, question: &Question) -> Option<&Answer> {
        if !self.made.contains_key(question) {
            let answer = self.make(question)?;
            self.made.insert(question.clone(), answer);
        }
        self.made.get(question)
    }

    fn make(&self, question: &Question) -> Option<Answer> {
        if question.class != IN {
            return None;
        }
        let data = match question.kind {
            kind::PTR => Data::Pointer(self.backward.get(&question.name.address()?)?),
            kind::AAAA => Data::Addresses(self.forward.get(&question.name)?),
            asked if asked == self.ulid_kind => Data::Ulids(self.forward.get(&question.name)?),
            _ => return None,
        };
        compose::answer(question, &[], &data, TTL)
    }
}

/// The whole name of a host.
fn named(text: &str, origin: &Name) -> Option<Name> {
    let whole = Name::from_text(text).ok().filter(|name| name.is_within(origin) && name != origin);
    whole.or_else(|| Name::from_text(&format!("{text}.{}", origin.to_string().trim_end_matches('.'))).ok())
}

/// Which identifiers a ULID record may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identifiers {
    /// Blocks of CMULAs besides fc00::/7.
    pub blocks: Vec<Block>,
    /// The site's own.
    pub site: Block,
}

impl Identifiers {
    /// Whether others may be known by an identifier, or the site's own host `serves` knows.
    pub fn holds(&self, ulid: Ulid, serves: impl FnOnce(Ulid) -> bool) -> bool {
        self.covers(ulid.0) && (!self.site.contains(ulid.0) || serves(ulid))
    }

    /// Whether an address is of a block of identifiers.
    pub fn covers(&self, address: Ipv6Addr) -> bool {
        address.is_unique_local() || self.blocks.iter().any(|block| block.contains(address))
    }
}

/// Whether a packet could be sent to an address by way of providers (RFC 4291 §2.4: global unicast that is assigned).
pub fn is_routable(address: Ipv6Addr) -> bool {
    address.segments()[0] >> 13 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::view::{View, rcode};

    fn ulid(text: &str) -> Ulid {
        Ulid(text.parse().unwrap())
    }

    fn question(name: &str, kind: u16) -> Question {
        Question::new(Name::from_text(name).unwrap(), kind)
    }

    #[test]
    fn own_names_are_answered_both_ways_and_nothing_else_is() {
        let mut zone = Zone::new(Some(Name::from_text("a.example").unwrap()), 65280);
        let (one, two) = (ulid("fc00:a:0:1::5"), ulid("fc00:a:0:1::6"));
        zone.set_names([("h1", one), ("H2.a.example.", two), ("web", one), ("web", two), ("bad..name", two)]);
        assert_eq!(zone.names(), (3, 1));
        let mut addresses = |name: &str, kind| {
            let answer = zone.answer(&question(name, kind))?;
            let view = View::new(answer.octets()).unwrap();
            assert_eq!(view.rcode(), u16::from(rcode::NO_ERROR));
            Some(view.records().iter().filter_map(|record| view.address(record)).collect::<Vec<_>>())
        };
        assert_eq!(addresses("h1.a.example", kind::AAAA), Some(vec![one.0]));
        assert_eq!(addresses("H2.A.Example", 65280), Some(vec![two.0]));
        assert_eq!(addresses("web.a.example", kind::AAAA), Some(vec![one.0, two.0]));
        assert_eq!(addresses("h3.a.example", kind::AAAA), None);
        assert_eq!(addresses("h1.a.example", 15), None);
        let mut pointer = |address: Ulid| {
            let answer = zone.answer(&Question::new(Name::of_address(address.0), kind::PTR))?;
            let view = View::new(answer.octets()).unwrap();
            view.target(&view.records()[0])
        };
        assert_eq!(pointer(one), Some(Name::from_text("h1.a.example").unwrap()));
        assert_eq!(pointer(ulid("fc00:a:0:1::7")), None);
        // Hosts that have gone are gone.
        zone.set_names([("h2", two)]);
        assert!(zone.answer(&question("h1.a.example", kind::AAAA)).is_none() && !zone.serves(one));
    }

    #[test]
    fn identifiers_are_unique_local_and_not_of_this_site_unless_served() {
        let block = |text: &str, length| Block::new(text.parse().unwrap(), length);
        let known = Identifiers { blocks: vec![block("2001:db8:ffff::", 48)], site: block("fc00:a::", 48) };
        let holds = |text| known.holds(ulid(text), |ulid| ulid.0.octets()[15] == 5);
        assert!(holds("fc00:b:0:1::9") && holds("fd12::1") && holds("2001:db8:ffff::1"));
        assert!(!holds("2001:db8::1") && !holds("fe80::1") && !holds("::1"));
        assert!(holds("fc00:a:0:1::5") && !holds("fc00:a:0:1::6"));
    }
}
