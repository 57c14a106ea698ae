//! A message somebody sent, as it came: its header, its one question, and where each record lies (RFC 1035 §4).
//!
//! [`View::new`] checks every length and every owner's name once, so that everything else is total. It reads nothing of the
//! data of records it does not know, so what is passed through is passed as it came.

use std::ops::Range;

use super::name::{self, Name};

/// Octets of the header.
pub const HEADER_LEN: usize = 12;

/// Types of records the machines look at.
pub mod kind {
    #![allow(missing_docs)]
    pub const A: u16 = 1;
    pub const NS: u16 = 2;
    pub const CNAME: u16 = 5;
    pub const SOA: u16 = 6;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const DNAME: u16 = 39;
    pub const OPT: u16 = 41;
    pub const RRSIG: u16 = 46;
    pub const NSEC: u16 = 47;
    pub const NSEC3: u16 = 50;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const TSIG: u16 = 250;
    pub const ANY: u16 = 255;
}

/// RFC 1035 §4.1.1 and successors.
pub mod rcode {
    #![allow(missing_docs)]
    pub const NO_ERROR: u8 = 0;
    pub const FORM_ERR: u8 = 1;
    pub const SERV_FAIL: u8 = 2;
    pub const NX_DOMAIN: u8 = 3;
    pub const NOT_IMP: u8 = 4;
    pub const REFUSED: u8 = 5;
}

/// The Internet's class.
pub const IN: u16 = 1;

/// What is asked: a name, a type and a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Question {
    /// Whose records.
    pub name: Name,
    /// QTYPE.
    pub kind: u16,
    /// QCLASS.
    pub class: u16,
}

impl Question {
    /// In the Internet's class.
    pub fn new(name: Name, kind: u16) -> Question {
        Question { name, kind, class: IN }
    }
}

/// Which part of a message a record is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What answers the question.
    Answer,
    /// Who would know, or why there is nothing.
    Authority,
    /// What may be useful.
    Additional,
}

/// Where a record lies.
#[derive(Clone, Debug)]
pub struct Record {
    /// In which section.
    pub section: Section,
    /// Its first octet.
    pub start: usize,
    /// TYPE.
    pub kind: u16,
    /// CLASS.
    pub class: u16,
    /// TTL in seconds; one with its highest bit set is none (RFC 2181 §8).
    pub ttl: u32,
    /// Where the TTL lies.
    pub ttl_at: usize,
    /// RDATA.
    pub data: Range<usize>,
}

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct Malformed;

/// A whole message with exactly one question.
#[derive(Debug)]
pub struct View<'a> {
    octets: &'a [u8],
    question_end: usize,
    records: Vec<Record>,
}

impl<'a> View<'a> {
    /// Walks a message from its first octet to its last.
    ///
    /// # Errors
    /// [`Malformed`] if it ends early or late, has a name that is none, or not one question.
    pub fn new(octets: &'a [u8]) -> Result<View<'a>, Malformed> {
        let number = |at: usize| octets.get(at..at + 2).map(|two| u16::from_be_bytes([two[0], two[1]]));
        if number(4) != Some(1) || octets.len() > usize::from(u16::MAX) {
            return Err(Malformed);
        }
        let name_len = name::whole(&octets[HEADER_LEN.min(octets.len())..]).ok_or(Malformed)?;
        let question_end = HEADER_LEN + name_len + 4;
        let mut at = question_end;
        let mut records = Vec::new();
        for (place, section) in [(6, Section::Answer), (8, Section::Authority), (10, Section::Additional)] {
            for _ in 0..number(place).ok_or(Malformed)? {
                let record = record(octets, at, section).ok_or(Malformed)?;
                at = record.data.end;
                records.push(record);
            }
        }
        match at == octets.len() {
            true => Ok(View { octets, question_end, records }),
            false => Err(Malformed),
        }
    }

    /// The octets.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// ID.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.octets[0], self.octets[1]])
    }

    /// Whether this is an answer to an ordinary question (QR set, OPCODE 0).
    pub fn is_answer(&self) -> bool {
        self.octets[2] & 0xf8 == 0x80
    }

    /// TC.
    pub fn is_truncated(&self) -> bool {
        self.octets[2] & 2 != 0
    }

    /// AD.
    pub fn is_authentic(&self) -> bool {
        self.octets[3] & 0x20 != 0
    }

    /// RCODE, with the eight bits that an OPT record adds (RFC 6891 §6.1.3).
    pub fn rcode(&self) -> u16 {
        let high = self.records.iter().find(|record| record.kind == kind::OPT);
        let high = high.map_or(0, |opt| u16::from(self.octets[opt.ttl_at]));
        high << 4 | u16::from(self.octets[3] & 15)
    }

    /// The name asked for, with the case it was asked with.
    pub fn asked(&self) -> &'a [u8] {
        &self.octets[HEADER_LEN..self.question_end - 4]
    }

    /// QTYPE and QCLASS.
    pub fn asked_kind(&self) -> (u16, u16) {
        let four = &self.octets[self.question_end - 4..self.question_end];
        (u16::from_be_bytes([four[0], four[1]]), u16::from_be_bytes([four[2], four[3]]))
    }

    /// Where the records begin.
    pub fn question_end(&self) -> usize {
        self.question_end
    }

    /// All records, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records of a section.
    pub fn section(&self, section: Section) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.section == section)
    }

    /// Whose record it is.
    pub fn owner(&self, record: &Record) -> Name {
        self.name_at(record.start).unwrap_or_else(Name::root)
    }

    /// The name that is a record's data: that of CNAME, DNAME and PTR. None if the data is no name.
    pub fn target(&self, record: &Record) -> Option<Name> {
        name::read(self.octets, record.data.start).filter(|(_, end)| *end == record.data.end).map(|(name, _)| name)
    }

    /// The address that is a record's data. None if it has not 16 octets.
    pub fn address(&self, record: &Record) -> Option<std::net::Ipv6Addr> {
        <[u8; 16]>::try_from(&self.octets[record.data.clone()]).ok().map(Into::into)
    }

    /// How long it is known that something is not there (RFC 2308 §5): the smaller of the SOA's TTL and its MINIMUM.
    pub fn negative_ttl(&self) -> Option<u32> {
        let soa = self.section(Section::Authority).find(|record| record.kind == kind::SOA)?;
        let data = &self.octets[soa.data.clone()];
        let minimum = data.last_chunk::<4>().filter(|_| data.len() >= 22)?;
        Some(soa.ttl.min(u32::from_be_bytes(*minimum)))
    }

    fn name_at(&self, at: usize) -> Option<Name> {
        name::read(self.octets, at).map(|(name, _)| name)
    }
}

fn record(octets: &[u8], start: usize, section: Section) -> Option<Record> {
    let (_, at) = name::read(octets, start)?;
    let fixed = octets.get(at..at + 10)?;
    let ttl = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
    let data = at + 10..at + 10 + usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    octets.get(data.clone())?;
    Some(Record {
        section,
        start,
        kind: u16::from_be_bytes([fixed[0], fixed[1]]),
        class: u16::from_be_bytes([fixed[2], fixed[3]]),
        ttl: if ttl >> 31 == 0 { ttl } else { 0 },
        ttl_at: at + 4,
        data,
    })
}
