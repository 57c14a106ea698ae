//! Which locators a host has, and what proves each of them, when the providers are not those it was made for.
//!
//! The parameters of a host never change while it keeps its identifier: they name the prefixes of its address set, and
//! the set stays what it is (RFC 5535 §8.1). What may change is which members of it are locators, since a provider may
//! go and come back; and a hybrid host may have locators outside its set, which the site's key signs (RFC 5533 §7.2).

use std::net::Ipv6Addr;
use std::sync::Arc;

use dataplane::wire::{Locator, Ulid};

use super::{Edit, EditError, Entry, Host, Prefix, Raw, Reader, list};
use crate::config::key;
use crate::config::problem::Problem;
use crate::config::site::Site;
use crate::identity::{HostIdentity, Kind, Parameters, SigningKey, hba, prefix_of, verify_ulid};

/// Attempts at a random address before the prefix counts as full.
const DRAWS_MAX: usize = 16;

/// What was done to a host's locators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// The host.
    pub name: String,
    /// Locators it has now and had not.
    pub added: Vec<Ipv6Addr>,
    /// Locators it has no longer.
    pub removed: Vec<Ipv6Addr>,
    /// Providers it has no locator from: not made for them, and no key to sign one.
    pub without: Vec<String>,
}

/// The site's key, read when the first host needs it.
#[derive(Default)]
pub(super) enum Key {
    #[default]
    Unread,
    Read(Arc<SigningKey>),
    /// Why there is none.
    Missing(String),
}

impl Key {
    fn get(&mut self, site: &Site) -> Result<&Arc<SigningKey>, String> {
        if let Key::Unread = self {
            *self = match site.key.as_deref().map(key::load) {
                None => Key::Missing("there is no site.key to sign it".into()),
                Some(Ok(key)) => Key::Read(Arc::new(key)),
                Some(Err(error)) => Key::Missing(error.to_string()),
            };
        }
        match self {
            Key::Read(key) => Ok(key),
            Key::Missing(reason) => Err(reason.clone()),
            Key::Unread => Err("it was not read".into()),
        }
    }

    pub(super) fn into_read(self) -> Option<Arc<SigningKey>> {
        match self {
            Key::Read(key) => Some(key),
            Key::Unread | Key::Missing(_) => None,
        }
    }
}

impl<'a> Reader<'a> {
    /// The host, if its parameters prove its identifier, and each locator that a provider delegated is proved by them or
    /// will be by a signature.
    pub(super) fn verify(&mut self, (entry, raw): (Entry, Raw<'a>), site: &Site) -> Option<Host> {
        let before = self.problems.len();
        let index = raw.index;
        let kind = verify_ulid(Ulid(entry.ulid), &entry.pds);
        let (kind, parameters) = match kind.and_then(|kind| Ok((kind, Parameters::parse(&entry.pds)?))) {
            Ok(both) => both,
            Err(reason) => {
                let text = format!("does not prove {}: {reason}", entry.ulid);
                self.problem(raw.fields.pds, format!("hosts[{index}].pds"), text);
                return None;
            }
        };
        for (number, locator) in entry.locators.iter().enumerate() {
            if let Err(text) = self.may_have(*locator, &parameters, kind, site) {
                let place = raw.locators.get(number).copied().unwrap_or(raw.fields.locators);
                self.problem(place, format!("hosts[{index}].locators[{number}]"), text);
            }
        }
        if self.problems.len() > before {
            return None;
        }
        let locators: Vec<Locator> = site
            .providers
            .iter()
            .filter_map(|provider| {
                entry.locators.iter().find(|it| provider.prefix.contains(**it)).copied().map(Locator)
            })
            .collect();
        // Prefixes that are delegated later may be all a host has.
        if !site.lan.contains(entry.ulid) || locators.is_empty() && site.uplinks.is_empty() {
            let text = must_be_made_again(&entry, site);
            self.problem(raw.fields.name, format!("hosts[{index}]"), text);
            return None;
        }
        self.note_what_is_unused(&entry, &raw, &locators, site);
        let identity = HostIdentity { ulid: Ulid(entry.ulid), locators, pds: entry.pds, kind };
        Some(Host { name: entry.name, identity, mac: entry.mac })
    }

    /// Whether a locator is proved by the parameters or can be by a signature; one that no provider delegated is not
    /// told to anybody, and must not be a forgery all the same.
    fn may_have(
        &mut self,
        locator: Ipv6Addr,
        parameters: &Parameters<'_>,
        kind: Kind,
        site: &Site,
    ) -> Result<(), String> {
        let Err(reason) = hba::verify_member(locator, parameters) else { return Ok(()) };
        let outside = parameters.set().is_none_or(|set| !set.contains(&prefix_of(locator)));
        let text = format!("{locator} is not proved by the host's parameters: {reason}");
        if kind == Kind::Hba || !outside {
            return Err(text);
        }
        let key = self.key.get(site).map_err(|missing| format!("{text}; {missing}"))?;
        match key.public_key_der() == parameters.key().der() {
            true => Ok(()),
            false => Err(format!("{text}; site.key is not the key the host was made with")),
        }
    }

    fn note_what_is_unused(&mut self, entry: &Entry, raw: &Raw<'a>, locators: &[Locator], site: &Site) {
        let name = &entry.name;
        for locator in entry.locators.iter().filter(|locator| !locators.contains(&Locator(**locator))) {
            let text = format!("{name} does not use {locator}: no provider delegates it, or another one comes first");
            self.warning(raw.fields.locators, format!("hosts[{}].locators", raw.index), text);
        }
        for provider in &site.providers {
            if !locators.iter().any(|locator| provider.prefix.contains(locator.0)) {
                let text = format!(
                    "{name} has no locator from {}: pshim6ctl host update {name}, or host add --replace {name} with new \
                     addresses",
                    provider.name
                );
                self.warning(raw.fields.locators, format!("hosts[{}].locators", raw.index), text);
            }
        }
    }
}

fn must_be_made_again(entry: &Entry, site: &Site) -> String {
    let made_for: Vec<Prefix> = entry.addresses().filter_map(|address| Prefix::of(address, 64)).collect();
    let now: Vec<Prefix> = site.hba_prefixes().collect();
    format!(
        "{name} was made for {}; site and providers now have {}: it must be made again, with new addresses \
         (pshim6ctl host add --replace {name})",
        list(&made_for),
        list(&now),
        name = entry.name,
    )
}

impl Edit {
    /// Fits locators to the site's providers, without touching identifiers: members of a host's set where there are, and
    /// else, for a hybrid host, random addresses that `key` is to sign. `only` this host, or all. What changed, for
    /// each.
    pub fn update(
        &mut self,
        only: Option<&str>,
        site: &Site,
        key: Option<&SigningKey>,
        rng: &mut dyn rand::Rng,
    ) -> Result<Vec<Updated>, EditError> {
        if let Some(name) = only.filter(|name| !self.entries.iter().any(|entry| entry.name == **name)) {
            return Err(EditError::Unknown(name.to_string()));
        }
        let mut all = Vec::new();
        for index in 0..self.entries.len() {
            let entry = &self.entries[index];
            if only.is_some_and(|name| name != entry.name) {
                continue;
            }
            let mut updated = Updated { name: entry.name.clone(), ..Updated::default() };
            let mut locators = Vec::new();
            for provider in &site.providers {
                let taken = |it: &Ipv6Addr| self.entries.iter().any(|other| other.addresses().any(|own| own == *it));
                match locator_under(entry, provider.prefix, key, rng, &taken) {
                    Some(locator) => locators.push(locator),
                    None => updated.without.push(provider.name.clone()),
                }
            }
            updated.added = locators.iter().filter(|it| !entry.locators.contains(it)).copied().collect();
            updated.removed = entry.locators.iter().filter(|it| !locators.contains(it)).copied().collect();
            self.entries[index].locators = locators;
            all.push(updated);
        }
        Ok(all)
    }
}

/// The locator of a host under a provider's prefix: the one it has, a member of its set, or a random address that `key` is
/// to sign; none if nothing would prove one.
pub fn locator_under(
    entry: &Entry,
    prefix: Prefix,
    key: Option<&SigningKey>,
    rng: &mut dyn rand::Rng,
    taken: &dyn Fn(&Ipv6Addr) -> bool,
) -> Option<Ipv6Addr> {
    if let Some(known) = entry.locators.iter().find(|it| prefix.contains(**it)) {
        return Some(*known);
    }
    let parameters = Parameters::parse(&entry.pds).ok()?;
    if let Ok(member) = hba::member_under(prefix.high_half(), entry.ulid, &parameters) {
        return Some(member);
    }
    let signs = key.is_some_and(|key| key.public_key_der() == parameters.key().der());
    let draw = |_| Ipv6Addr::from_bits(prefix.address().to_bits() | u128::from(rng.next_u64()));
    (0..if signs { DRAWS_MAX } else { 0 }).map(draw).find(|it| !taken(it))
}

impl super::Hosts {
    /// What can be obeyed but should be known.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The site's key, if a host has locators that need its signature.
    pub fn key(&self) -> Option<&Arc<SigningKey>> {
        self.key.as_ref()
    }
}
