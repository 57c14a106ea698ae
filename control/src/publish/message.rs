//! One change of one name as an UPDATE message (RFC 2136), signed with the zone's key (RFC 8945), and what the server says.

use std::net::Ipv6Addr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode, UpdateMessage};
use hickory_proto::rr::rdata::tsig::TsigAlgorithm;
use hickory_proto::rr::rdata::{AAAA, NULL, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType, TSigVerifier, TSigner};

use crate::config::publish::{KeyAlgorithm, TsigKey};

/// Seconds the clocks of server and box may differ (RFC 8945 §10 recommends this).
const FUDGE_S: u16 = 300;

/// What a name shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// A host's locators and its identifier.
    Host(Vec<Ipv6Addr>, Ipv6Addr),
    /// The host an identifier belongs to.
    Pointer(Name),
    /// Nothing: what this box has put there goes.
    Nothing,
}

/// What has to be true of a name for its change to be ours to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nobody uses it.
    Free,
    /// It has an identifier: whoever put that there was this site.
    Ours,
    /// Nothing: the tree of our own identifiers is nobody else's.
    Certain,
}

/// What came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It is done.
    Done,
    /// The claim does not hold.
    NotSo,
    /// The server does not do it.
    Refused(ResponseCode),
}

/// A signed message and what its answer has to fit.
pub(super) struct Signed {
    pub(super) octets: Vec<u8>,
    pub(super) verifier: TSigVerifier,
}

/// The key in the form that signs.
pub(super) fn signer(key: &TsigKey) -> Option<TSigner> {
    let algorithm = match key.algorithm {
        KeyAlgorithm::Sha256 => TsigAlgorithm::HmacSha256,
        KeyAlgorithm::Sha384 => TsigAlgorithm::HmacSha384,
        KeyAlgorithm::Sha512 => TsigAlgorithm::HmacSha512,
    };
    let name = Name::from_ascii(&key.name).ok()?;
    TSigner::new(key.secret().to_vec(), algorithm, name, FUDGE_S).ok()
}

/// What is to be changed, and where.
pub(super) struct Change<'a> {
    pub(super) zone: &'a Name,
    pub(super) name: &'a Name,
    pub(super) data: &'a Data,
    pub(super) claim: Claim,
    pub(super) ttl: u32,
    pub(super) ulid_type: RecordType,
}

impl Change<'_> {
    /// The message, signed at `unix` seconds. None if a name is too long to be sent.
    pub(super) fn sign(&self, id: u16, unix: u64, signer: &TSigner) -> Option<Signed> {
        let mut message = Message::new(id, MessageType::Query, OpCode::Update);
        let mut zone = Query::query(self.zone.clone(), RecordType::SOA);
        zone.set_query_class(DNSClass::IN);
        message.add_zone(zone);
        // RFC 2136 §2.4.1 and §2.4.5.
        match self.claim {
            Claim::Free => message.add_pre_requisite(self.empty(DNSClass::NONE, RecordType::ANY)),
            Claim::Ours => message.add_pre_requisite(self.empty(DNSClass::ANY, self.ulid_type)),
            Claim::Certain => {}
        }
        // §2.5.2: only what is ours by its type goes; others may say more of the name.
        let types = match self.claim {
            Claim::Certain => &[RecordType::PTR][..],
            Claim::Free | Claim::Ours => &[RecordType::AAAA, self.ulid_type][..],
        };
        message.add_updates(types.iter().map(|kind| self.empty(DNSClass::ANY, *kind)).collect::<Vec<_>>());
        message.add_updates(
            self.records().map(|data| Record::from_rdata(self.name.clone(), self.ttl, data)).collect::<Vec<_>>(),
        );
        let verifier = message.finalize(signer, unix).ok()??;
        Some(Signed { octets: message.to_vec().ok()?, verifier })
    }

    fn empty(&self, class: DNSClass, kind: RecordType) -> Record {
        let mut record = Record::update0(self.name.clone(), 0, kind);
        record.dns_class = class;
        record
    }

    fn records(&self) -> impl Iterator<Item = RData> {
        let (locators, rest) = match self.data {
            Data::Host(locators, ulid) => {
                let rdata = NULL::with(ulid.octets().to_vec());
                (locators.clone(), Some(RData::Unknown { code: self.ulid_type, rdata }))
            }
            Data::Pointer(name) => (Vec::new(), Some(RData::PTR(PTR(name.clone())))),
            Data::Nothing => (Vec::new(), None),
        };
        locators.into_iter().map(|locator| RData::AAAA(AAAA(locator))).chain(rest)
    }
}

/// The identifier of a message, if it has one.
pub(super) fn id_of(octets: &[u8]) -> Option<u16> {
    octets.first_chunk().map(|id| u16::from_be_bytes(*id))
}

/// What a server's answer says, if its signature is good. None if not: then somebody else may have made it.
pub(super) fn read(octets: &[u8], verifier: &mut TSigVerifier) -> Option<Said> {
    let answer = verifier.verify(octets).ok()?;
    let fits = answer.metadata.message_type == MessageType::Response && answer.metadata.op_code == OpCode::Update;
    fits.then(|| match answer.metadata.response_code {
        ResponseCode::NoError => Said::Done,
        ResponseCode::YXDomain | ResponseCode::NXRRSet | ResponseCode::YXRRSet => Said::NotSo,
        other => Said::Refused(other),
    })
}

/// What an answer without a good signature says went wrong, for a line in the log.
pub(super) fn complaint(octets: &[u8]) -> Option<ResponseCode> {
    let answer = Message::from_vec(octets).ok()?;
    (answer.metadata.message_type == MessageType::Response).then_some(answer.metadata.response_code)
}
