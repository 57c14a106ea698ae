//! Answers the box makes itself, with hickory-proto: CMULAs in the place of locators, the site's own names, hints of service
//! records.

use std::net::Ipv6Addr;

use dataplane::wire::Ulid;
use hashbrown::HashMap;
use hickory_proto::dnssec::rdata::DNSSECRData;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SVCB, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{AAAA, CNAME, HINFO, HTTPS, NULL, PTR, SOA};
use hickory_proto::rr::{Name as WireName, RData, Record, RecordType};
use hickory_proto::serialize::binary::BinDecodable;

use super::follow::follow;
use super::message::Answer;
use super::name::Name;
use super::view::{Question, View, kind};

/// What a name is answered with.
pub enum Data<'a> {
    /// AAAA records.
    Addresses(&'a [Ulid]),
    /// ULID records (their type is the operator's).
    Ulids(&'a [Ulid]),
    /// A PTR record.
    Pointer(&'a Name),
    /// What is answered to those who ask for everything (RFC 8482 §4.2).
    NotEverything,
}

/// An answer to `question`: its chain of aliases, each with the next, and the data at its end. None if it cannot be put into
/// octets. `ttl` is that of every record.
pub fn answer(question: &Question, chain: &[Name], data: &Data<'_>, ttl: u32) -> Option<Answer> {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.response_code = ResponseCode::NoError;
    let mut owner = wire(&question.name)?;
    let mut query = Query::query(owner.clone(), RecordType::from(question.kind));
    query.set_query_class(question.class.into());
    message.add_query(query);
    for next in chain {
        let next = wire(next)?;
        message.add_answer(Record::from_rdata(owner, ttl, RData::CNAME(CNAME(next.clone()))));
        owner = next;
    }
    let mut add = |data: RData| {
        message.add_answer(Record::from_rdata(owner.clone(), ttl, data));
    };
    match data {
        Data::Addresses(ulids) => ulids.iter().for_each(|ulid| add(RData::AAAA(AAAA(ulid.0)))),
        Data::Ulids(ulids) => {
            let code = RecordType::from(question.kind);
            ulids.iter().for_each(|ulid| add(RData::Unknown { code, rdata: NULL::with(ulid.0.octets().to_vec()) }));
        }
        Data::Pointer(name) => add(RData::PTR(PTR(wire(name)?))),
        Data::NotEverything => add(RData::HINFO(HINFO::new("RFC8482".to_owned(), String::new()))),
    }
    let octets = message.to_vec().ok()?;
    let view = View::new(&octets).ok()?;
    match data {
        Data::NotEverything => Some(Answer::made(&view)),
        _ => Answer::of(&view).ok(),
    }
}

/// What a server said of a name that it does not know and that exists all the same: there are no such records (RFC 2308 §2.2).
/// Its SOA record says for how long, as before; what it proves by signatures is not so, and left out.
pub fn no_data(octets: &[u8]) -> Option<Answer> {
    let mut message = Message::from_vec(octets).ok()?;
    message.metadata.response_code = ResponseCode::NoError;
    message.metadata.authentic_data = false;
    message.authorities.retain(|record| record.record_type() == RecordType::SOA);
    message.answers.clear();
    message.additionals.clear();
    let octets = message.to_vec().ok()?;
    Some(Answer::made(&View::new(&octets).ok()?))
}

/// What a server said of a name's IPv4 addresses, `age` seconds ago, without them: no data at the end of the same aliases
/// (RFC 2308 §2.2), for `ttl` seconds at most. Whose zone that is nobody has said, so the SOA record is of the name itself.
pub fn withheld(octets: &[u8], age: u32, ttl: u32) -> Option<Answer> {
    let view = View::new(octets).ok()?;
    let chain = follow(&view, kind::A)?.chain;
    let end = match chain.last() {
        Some(end) => wire(end)?,
        None => wire(&Name::from_wire(view.asked())?)?,
    };
    let mut message = Message::from_vec(octets).ok()?;
    message.metadata.authentic_data = false;
    message.answers.retain(|record| matches!(record.record_type(), RecordType::CNAME | RecordType::DNAME));
    message.answers.iter_mut().for_each(|record| record.ttl = record.ttl.saturating_sub(age).min(ttl));
    message.authorities.clear();
    message.additionals.clear();
    let soa = SOA::new(end.clone(), WireName::root(), 1, 3600, 600, 86_400, ttl);
    message.add_authority(Record::from_rdata(end, ttl, RData::SOA(soa)));
    let octets = message.to_vec().ok()?;
    Some(Answer::made(&View::new(&octets).ok()?))
}

/// The same service records without hints for IPv4 at the endpoints that have a CMULA; none if there are no such hints.
pub fn without_legacy(octets: &[u8], ulids: &HashMap<Name, Vec<Ulid>>) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(octets).ok()?;
    let mut changed = false;
    for record in message.answers.iter_mut().chain(&mut message.additionals) {
        let name = service(&record.data).and_then(|service| target(record, service));
        let service = match &mut record.data {
            RData::SVCB(service) | RData::HTTPS(HTTPS(service)) => service,
            _ => continue,
        };
        let before = service.svc_params.len();
        if name.is_none_or(|name| !ulids.contains_key(&name)) {
            continue;
        }
        service.svc_params.retain(|(key, _)| *key != SvcParamKey::Ipv4Hint);
        changed |= service.svc_params.len() != before;
        // What is mandatory has to be there (RFC 9460 §8).
        for (_, value) in &mut service.svc_params {
            if let SvcParamValue::Mandatory(mandatory) = value {
                mandatory.0.retain(|key| *key != SvcParamKey::Ipv4Hint);
            }
        }
        service.svc_params.retain(|(_, value)| !matches!(value, SvcParamValue::Mandatory(list) if list.0.is_empty()));
    }
    message.metadata.authentic_data = false;
    changed.then(|| message.to_vec().ok())?
}

/// The names at which the endpoints of service records lie that carry hints for IPv6, or for `any` protocol (RFC 9460 §2.5,
/// §7.3), at most `names_max`. None when there are more, or the message cannot be read.
pub fn hinted(octets: &[u8], names_max: usize, any: bool) -> Option<Vec<Name>> {
    let message = Message::from_vec(octets).ok()?;
    let mut names = Vec::new();
    for record in message.answers.iter().chain(&message.additionals) {
        let legacy = |service: &SVCB| service.svc_params.iter().any(|(key, _)| *key == SvcParamKey::Ipv4Hint);
        let wanted = |service: &&SVCB| hint(service).is_some() || any && legacy(service);
        let Some(service) = service(&record.data).filter(wanted) else { continue };
        let name = target(record, service)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (names.len() <= names_max).then_some(names)
}

/// The same message with the hints for some names replaced by their CMULAs, which are valid for `ttl` at most. Signatures of
/// what was changed are left out. None if it cannot be read or written.
pub fn rehint(octets: &[u8], ulids: &HashMap<Name, Vec<Ulid>>, ttl: u32) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(octets).ok()?;
    let (asked, mut changed) = (message.queries.first()?.query_type(), false);
    for record in message.answers.iter_mut().chain(&mut message.additionals) {
        let Some(name) = service(&record.data).and_then(|service| target(record, service)) else { continue };
        let Some(ulids) = ulids.get(&name).filter(|ulids| !ulids.is_empty()) else { continue };
        let service = match &mut record.data {
            RData::SVCB(service) | RData::HTTPS(HTTPS(service)) => service,
            _ => continue,
        };
        for (_, value) in &mut service.svc_params {
            if let SvcParamValue::Ipv6Hint(IpHint(hints)) = value {
                *hints = ulids.iter().map(|ulid| AAAA(ulid.0)).collect();
                record.ttl = record.ttl.min(ttl);
                changed = true;
            }
        }
    }
    if changed {
        let covers = |record: &Record| match &record.data {
            RData::DNSSEC(DNSSECRData::RRSIG(signature)) => signature.input().type_covered == asked,
            _ => false,
        };
        message.answers.retain(|record| !covers(record));
        message.additionals.retain(|record| !covers(record));
        message.metadata.authentic_data = false;
    }
    message.to_vec().ok()
}

fn service(data: &RData) -> Option<&SVCB> {
    match data {
        RData::SVCB(service) | RData::HTTPS(HTTPS(service)) => Some(service),
        _ => None,
    }
}

fn hint(service: &SVCB) -> Option<&IpHint<AAAA>> {
    service.svc_params.iter().find_map(|(key, value)| match (key, value) {
        (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(hint)) => Some(hint),
        _ => None,
    })
}

/// The endpoint's name; a root stands for the owner's (RFC 9460 §2.5.2).
fn target(record: &Record, service: &SVCB) -> Option<Name> {
    let name = if service.target_name.is_root() { &record.name } else { &service.target_name };
    plain(name)
}

fn wire(name: &Name) -> Option<WireName> {
    WireName::from_bytes(name.wire()).ok()
}

fn plain(name: &WireName) -> Option<Name> {
    let mut octets = Vec::with_capacity(name.len() + 1);
    for label in name.iter() {
        octets.push(u8::try_from(label.len()).ok()?);
        octets.extend_from_slice(label);
    }
    octets.push(0);
    Name::from_wire(&octets)
}

/// The addresses in the hints of a message, for tests.
pub fn hints(octets: &[u8]) -> Vec<Ipv6Addr> {
    let message = Message::from_vec(octets).ok();
    let records = message.iter().flat_map(|message| &message.answers);
    let hints = records.filter_map(|record| service(&record.data).and_then(hint));
    hints.flat_map(|IpHint(addresses)| addresses.iter().map(|address| address.0)).collect()
}
