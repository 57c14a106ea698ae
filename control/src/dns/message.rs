//! Questions of hosts, and answers as they are kept.
//!
//! An answer is kept as the octets an upstream server sent, or as `compose` made them, without what belongs to one hop (OPT,
//! RFC 6891 §6.2.3). A host gets a copy with its own identifier, flags, letters and OPT record, and with the TTLs aged. So
//! what is passed through is passed untouched, signatures among it.

use super::follow::follow;
use super::name::Name;
use super::view::{HEADER_LEN, IN, Malformed, Question, Record, Section, View, kind, rcode};

/// UDP payload the box takes and sends: what fits the smallest MTU of IPv6 with room to spare.
pub const PAYLOAD_MAX: u16 = 1232;
/// What a host takes that does not say (RFC 1035 §4.2.1).
const PAYLOAD_MIN: usize = 512;
/// Octets of an OPT record without options.
const OPT_LEN: usize = 11;
/// Longest time an answer is kept, in seconds.
const TTL_MAX: u32 = 86_400;
/// Longest time the absence of something is kept (RFC 2308 §5).
const NEGATIVE_MAX: u32 = 3_600;
/// How long it is kept that a server could not tell (RFC 2308 §7.1, RFC 9520 §3.2).
const FAILURE_TTL: u32 = 5;

/// What a host's OPT record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// Largest UDP payload it takes.
    pub payload: u16,
    /// DO: it wants signatures (RFC 3225).
    pub dnssec_ok: bool,
}

/// A host's question, ready to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// ID.
    pub id: u16,
    /// RD.
    pub recursion: bool,
    /// AD: it wants to know whether the answer was validated (RFC 6840 §5.7).
    pub authentic: bool,
    /// What its OPT record says, if it has one.
    pub edns: Option<Edns>,
    /// What it asks, and what of that changes the answer.
    pub key: Key,
    /// The question as it was written.
    asked: Vec<u8>,
}

/// Why a message is no question that can be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// Not even a header, or an answer: nothing is said, since it may not come from whom it says (RFC 5625 §6.1).
    Noise,
    /// It is told so with this code, which has up to twelve bits.
    Refused(u16),
}

impl Query {
    /// Reads a host's message.
    ///
    /// # Errors
    /// [`Unasked`] if it is not one ordinary question with at most one OPT record of version 0.
    pub fn parse(octets: &[u8]) -> Result<Query, Unasked> {
        let header: &[u8; HEADER_LEN] = octets.first_chunk().ok_or(Unasked::Noise)?;
        if header[2] & 0x80 != 0 {
            return Err(Unasked::Noise);
        }
        if header[2] & 0x78 != 0 {
            return Err(Unasked::Refused(rcode::NOT_IMP.into()));
        }
        let malformed = |_: Malformed| Unasked::Refused(rcode::FORM_ERR.into());
        // What has more records is no question; it is not read to find that out.
        if header[6..10] != [0; 4] || header[10] != 0 || header[11] > 1 {
            return Err(malformed(Malformed));
        }
        let view = View::new(octets).map_err(malformed)?;
        let edns = match view.records() {
            [] => None,
            [opt] if opt.section == Section::Additional && opt.kind == kind::OPT && octets[opt.start] == 0 => {
                if octets[opt.ttl_at + 1] != 0 {
                    return Err(Unasked::Refused(16));
                }
                Some(Edns { payload: opt.class, dnssec_ok: octets[opt.ttl_at + 2] & 0x80 != 0 })
            }
            _ => return Err(malformed(Malformed)),
        };
        let name = Name::from_wire(view.asked()).ok_or(malformed(Malformed))?;
        let (kind, class) = view.asked_kind();
        let dnssec_ok = edns.is_some_and(|edns: Edns| edns.dnssec_ok);
        let flags = Flags { dnssec_ok, checking_disabled: header[3] & 0x10 != 0 };
        Ok(Query {
            id: view.id(),
            recursion: header[2] & 1 != 0,
            authentic: header[3] & 0x20 != 0,
            edns,
            key: Key { question: Question { name, kind, class }, flags },
            asked: octets[HEADER_LEN..view.question_end()].to_vec(),
        })
    }

    /// Octets of the longest answer over UDP.
    pub fn datagram_max(&self) -> usize {
        match self.edns {
            Some(edns) => usize::from(edns.payload.min(PAYLOAD_MAX)).max(PAYLOAD_MIN),
            None => PAYLOAD_MIN,
        }
    }

    /// An answer without records.
    pub fn refusal(&self, code: u16) -> Vec<u8> {
        let mut octets = vec![0; HEADER_LEN];
        octets[5] = 1;
        octets.extend_from_slice(&self.asked);
        octets[3] = code as u8 & 15;
        self.finish(&mut octets, false, code);
        octets
    }

    /// Header fields and OPT record that are this host's.
    fn finish(&self, octets: &mut Vec<u8>, authentic: bool, code: u16) {
        octets[..2].copy_from_slice(&self.id.to_be_bytes());
        // AA is for who has the zone, and not for who has been told (RFC 1035 §4.1.1).
        octets[2] = 0x80 | u8::from(self.recursion);
        let authentic = authentic && (self.authentic || self.key.flags.dnssec_ok);
        octets[3] = octets[3] & 15 | 0x80 | u8::from(authentic) << 5 | u8::from(self.key.flags.checking_disabled) << 4;
        let Some(edns) = self.edns else { return };
        let additional = u16::from_be_bytes([octets[10], octets[11]]).saturating_add(1);
        octets[10..12].copy_from_slice(&additional.to_be_bytes());
        octets.extend_from_slice(&opt(edns.dnssec_ok, (code >> 4) as u8));
    }
}

/// An OPT record without options.
fn opt(dnssec_ok: bool, rcode_high: u8) -> [u8; OPT_LEN] {
    let [a, b] = PAYLOAD_MAX.to_be_bytes();
    [0, 0, kind::OPT as u8, a, b, rcode_high, 0, u8::from(dnssec_ok) << 7, 0, 0, 0]
}

/// What to say to a message that cannot be read; its question is not repeated, since there may be none.
pub fn refusal_of_unread(octets: &[u8], code: u16) -> Vec<u8> {
    let mut answer = vec![0; HEADER_LEN];
    answer[..2].copy_from_slice(octets.get(..2).unwrap_or(&[0, 0]));
    let second = octets.get(2).copied().unwrap_or_default();
    answer[2] = 0x80 | second & 0x79;
    answer[3] = 0x80 | code as u8 & 15;
    if code > 15 {
        answer[11] = 1;
        answer.extend_from_slice(&opt(false, (code >> 4) as u8));
    }
    answer
}

/// A question to an upstream server. `asked` is its name in the letters it is asked with.
pub fn question(id: u16, asked: &[u8], key: &Key) -> Vec<u8> {
    let Key { question: Question { kind, class, .. }, flags } = key;
    let mut octets = Vec::with_capacity(HEADER_LEN + asked.len() + 4 + OPT_LEN);
    octets.extend_from_slice(&id.to_be_bytes());
    octets.extend_from_slice(&[1, u8::from(flags.checking_disabled) << 4 | 0x20, 0, 1, 0, 0, 0, 0, 0, 1]);
    octets.extend_from_slice(asked);
    octets.extend_from_slice(&kind.to_be_bytes());
    octets.extend_from_slice(&class.to_be_bytes());
    octets.extend_from_slice(&opt(flags.dnssec_ok, 0));
    octets
}

/// The bits of a host's question that change what upstream servers answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flags {
    /// DO.
    pub dnssec_ok: bool,
    /// CD.
    pub checking_disabled: bool,
}

/// What is asked for: those with the same key get the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The question.
    pub question: Question,
    /// How it is asked.
    pub flags: Flags,
}

/// An answer for whoever asks the same question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    octets: Box<[u8]>,
    question_end: usize,
    /// Where the TTLs lie.
    ttls: Box<[u16]>,
    authentic: bool,
    /// How long it may be kept, in seconds.
    pub lifetime: u32,
}

/// An answer of a server is not passed on: it has records nobody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("records nobody asked for")]
pub struct Unusable;

/// Whether an answer has records of the wanted type that are of another name than the one asked for and its aliases, or aliases
/// without an end.
fn has_strangers(view: &View<'_>, asked: u16) -> bool {
    let (Some(first), Some(end)) = (Name::from_wire(view.asked()), follow(view, asked)) else { return true };
    let belongs = |owner: Name| owner == first || end.chain.contains(&owner);
    let concerned = |record: &&Record| record.kind == asked || record.kind == kind::CNAME;
    !view.section(Section::Answer).filter(concerned).all(|record| belongs(view.owner(record)))
}

impl Answer {
    /// What a server answered, for hosts.
    ///
    /// Addresses in the additional section are locators of hosts nobody has asked about, and a host that used them would
    /// go past the shim: such a section is left out whole, since it is never necessary and cutting the end of a message
    /// leaves all pointers right.
    ///
    /// # Errors
    /// [`Unusable`] when its answer section holds other records than such an answer has.
    pub fn of(view: &View<'_>) -> Result<Answer, Unusable> {
        let (asked, _) = view.asked_kind();
        let belongs = |of: u16| {
            let signs = [kind::CNAME, kind::DNAME, kind::RRSIG, kind::NSEC, kind::NSEC3].contains(&of);
            of == asked || signs
        };
        let fits = |section: Section, of: u16| match section {
            Section::Answer => belongs(of),
            Section::Authority => of != kind::AAAA && of != kind::OPT,
            Section::Additional => true,
        };
        if !view.records().iter().all(|record| fits(record.section, record.kind)) || has_strangers(view, asked) {
            return Err(Unusable);
        }
        Ok(Answer::made(view))
    }

    /// The same for what the box made itself.
    pub(super) fn made(view: &View<'_>) -> Answer {
        let mut last = view.records();
        let opt = |(record, _): &(&Record, _)| record.kind == kind::OPT && record.section == Section::Additional;
        if let Some((_, before)) = last.split_last().filter(opt) {
            last = before;
        }
        let stays = |of: u16| ![kind::AAAA, kind::OPT, kind::TSIG].contains(&of);
        let additional = |record: &&Record| record.section == Section::Additional;
        if !last.iter().filter(additional).all(|record| stays(record.kind)) {
            last = &last[..last.iter().take_while(|record| record.section != Section::Additional).count()];
        }
        let end = last.last().map_or(view.question_end(), |record| record.data.end);
        let mut octets = view.octets()[..end].to_vec();
        let kept = last.iter().filter(additional).count() as u16;
        octets[10..12].copy_from_slice(&kept.to_be_bytes());
        if view.rcode() > 15 {
            // Codes of that length are about one hop: what ails the server's EDNS is not the host's (RFC 6891 §6.1.3).
            octets[3] = octets[3] & 0xf0 | rcode::SERV_FAIL;
        }
        let lifetime = lifetime(view);
        for record in last {
            // Who keeps an absence goes by the SOA's TTL alone.
            let longest = if record.kind == kind::SOA { lifetime } else { TTL_MAX };
            let ttl = record.ttl.min(longest);
            octets[record.ttl_at..record.ttl_at + 4].copy_from_slice(&ttl.to_be_bytes());
        }
        let ttls = last.iter().map(|record| record.ttl_at as u16).collect();
        let (question_end, authentic) = (view.question_end(), view.is_authentic());
        Answer { octets: octets.into_boxed_slice(), question_end, ttls, authentic, lifetime }
    }

    /// Whether it says that the name asked for does not exist, and not that an alias of it leads nowhere.
    pub fn denies_name(&self) -> bool {
        self.octets[3] & 15 == rcode::NX_DOMAIN && self.octets[6..8] == [0, 0]
    }

    /// Octets it takes to keep it.
    pub fn size(&self) -> usize {
        self.octets.len() + 2 * self.ttls.len()
    }

    /// The same answer for a shorter time.
    pub fn shortened(mut self, lifetime: u32) -> Answer {
        self.lifetime = self.lifetime.min(lifetime);
        self
    }

    /// The message, without any OPT record.
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// What a host gets that asked this `age` seconds after the answer came, in at most `octets_max` octets; if there is no
    /// room, a truncated answer without records (RFC 2181 §9), with which it comes again over TCP.
    pub fn reply(&self, query: &Query, age: u32, octets_max: usize) -> Vec<u8> {
        let opt_len = if query.edns.is_some() { OPT_LEN } else { 0 };
        if self.octets.len() + opt_len > octets_max {
            let mut octets = query.refusal(u16::from(self.octets[3] & 15));
            octets[2] |= 2;
            return octets;
        }
        let mut octets = Vec::with_capacity(self.octets.len() + opt_len);
        octets.extend_from_slice(&self.octets);
        if query.asked.len() + HEADER_LEN == self.question_end {
            octets[HEADER_LEN..self.question_end].copy_from_slice(&query.asked);
        }
        if age > 0 {
            for &at in &self.ttls {
                let place = &mut octets[usize::from(at)..usize::from(at) + 4];
                let ttl = u32::from_be_bytes([place[0], place[1], place[2], place[3]]);
                place.copy_from_slice(&ttl.saturating_sub(age).to_be_bytes());
            }
        }
        query.finish(&mut octets, self.authentic, 0);
        octets
    }
}

/// How long an answer may be kept (RFC 1035 §3.2.1, RFC 2308 §5): not at all when it says nothing of that.
fn lifetime(view: &View<'_>) -> u32 {
    let (asked, _) = view.asked_kind();
    let ttl = view.section(Section::Answer).map(|record| record.ttl).min();
    let found = view.section(Section::Answer).any(|record| record.kind == asked);
    match u8::try_from(view.rcode()).unwrap_or(rcode::SERV_FAIL) {
        rcode::NO_ERROR if found => ttl.unwrap_or(0).min(TTL_MAX),
        rcode::NO_ERROR | rcode::NX_DOMAIN => {
            view.negative_ttl().map_or(0, |negative| negative.min(ttl.unwrap_or(u32::MAX)).min(NEGATIVE_MAX))
        }
        _ => FAILURE_TTL,
    }
}

/// Whether a server's answer is one to this question: a class and type that are the same, a name that is the same but for
/// the case of its letters.
pub fn matches(view: &View<'_>, question: &Question) -> bool {
    view.asked_kind() == (question.kind, question.class)
        && view.asked().len() == question.name.wire().len()
        && view.asked().eq_ignore_ascii_case(question.name.wire())
}

/// Questions that are about a connection or a transfer and nothing an ALG could pass on (RFC 6895 §3.1).
pub fn is_meta(kind: u16) -> bool {
    (128..=254).contains(&kind) || kind == kind::OPT || kind == 0
}

/// Whether hosts may ask for a class at all.
pub fn is_internet(class: u16) -> bool {
    class == IN
}
