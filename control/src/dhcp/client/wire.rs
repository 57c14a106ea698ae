//! Octets of a client: questions with one IA_PD (RFC 8415 §21.21, §21.22), and what servers answer.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::super::message::{ADVERTISE, Malformed, Options, REPLY, Writer, code};
use super::{Delegated, Duid, PREFIXES_MAX};
use crate::time::Instant;

pub(super) const SOLICIT: u8 = 1;
pub(super) const REQUEST: u8 = 3;
pub(super) const RENEW: u8 = 5;
pub(super) const REBIND: u8 = 6;
pub(super) const RELEASE: u8 = 8;
/// A time without end (§7.7).
pub(super) const INFINITY: u32 = u32::MAX;
/// Longest message that is read.
const OCTETS_MAX: usize = 1500;

const ELAPSED_TIME: u16 = 8;
const IA_PREFIX: u16 = 26;
const SOL_MAX_RT: u16 = 82;

/// Status codes (§21.13).
pub(super) mod status {
    pub(in super::super) const SUCCESS: u16 = 0;
    pub(in super::super) const NO_BINDING: u16 = 3;
    pub(in super::super) const NO_PREFIX_AVAIL: u16 = 6;
}

/// A message to servers.
pub(super) struct Question<'a> {
    pub(super) kind: u8,
    pub(super) transaction: [u8; 3],
    pub(super) client: &'a Duid,
    pub(super) server: Option<&'a Duid>,
    /// Hundredths of a second since the first of its kind.
    pub(super) elapsed: u16,
    pub(super) rapid_commit: bool,
    pub(super) iaid: u32,
    pub(super) prefixes: &'a [(Ipv6Addr, u8)],
}

impl Question<'_> {
    pub(super) fn emit(&self) -> Vec<u8> {
        let mut out = Writer::message(self.kind, self.transaction);
        out.option(code::CLIENT_ID, |out| out.put(self.client.octets()));
        if let Some(server) = self.server {
            out.option(code::SERVER_ID, |out| out.put(server.octets()));
        }
        out.option(ELAPSED_TIME, |out| out.put(&self.elapsed.to_be_bytes()));
        if self.kind != RELEASE {
            // §21.7: has to be asked for in each of the others.
            out.option(code::OPTION_REQUEST, |out| out.put(&SOL_MAX_RT.to_be_bytes()));
        }
        if self.rapid_commit {
            out.option(code::RAPID_COMMIT, |_| {});
        }
        out.option(code::IA_PD, |out| {
            out.put(&self.iaid.to_be_bytes());
            // T1, T2 and lifetimes are for the server to say.
            out.put(&[0; 8]);
            for (prefix, length) in self.prefixes {
                out.option(IA_PREFIX, |out| {
                    out.put(&[0; 8]);
                    out.put(&[*length]);
                    out.put(&prefix.octets());
                });
            }
        });
        out.finish()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Advertise,
    Reply,
}

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: Kind,
    pub(super) transaction: [u8; 3],
    pub(super) client: Duid,
    pub(super) server: Duid,
    pub(super) preference: u8,
    pub(super) rapid_commit: bool,
    pub(super) status: u16,
    pub(super) sol_max_rt: Option<Duration>,
    /// Our association, if it is there and its times do not contradict each other.
    pub(super) ia: Option<Ia>,
}

/// An IA_PD.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ia {
    pub(super) t1: u32,
    pub(super) t2: u32,
    pub(super) status: u16,
    pub(super) prefixes: Vec<Offered>,
}

/// A prefix with its lifetimes in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) prefix: Ipv6Addr,
    pub(super) length: u8,
    pub(super) preferred: u32,
    pub(super) valid: u32,
}

impl Offered {
    pub(super) fn delegated(&self, now: Instant) -> Delegated {
        let end = |seconds| Some(now + Duration::from_secs(u64::from(seconds))).filter(|_| seconds != INFINITY);
        let (preferred, valid) = (end(self.preferred), end(self.valid));
        Delegated { prefix: self.prefix, length: self.length, preferred, valid, current: true }
    }
}

impl Answer {
    /// Reads an Advertise or a Reply; of the associations the one called `iaid`.
    pub(super) fn parse(octets: &[u8], iaid: u32) -> Result<Answer, Malformed> {
        let (header, rest) = octets.split_first_chunk::<4>().ok_or(Malformed::Length)?;
        let kind = match header[0] {
            ADVERTISE => Kind::Advertise,
            REPLY => Kind::Reply,
            _ => return Err(Malformed::Type),
        };
        if octets.len() > OCTETS_MAX {
            return Err(Malformed::Length);
        }
        let (mut client, mut server, mut ia) = (None, None, None);
        let (mut preference, mut rapid_commit, mut sol_max_rt, mut status) = (0, false, None, 0);
        for (code, data) in Options::new(rest)?.iter() {
            match code {
                code::CLIENT_ID => once(&mut client, Duid::new(data).ok_or(Malformed::Option)?)?,
                code::SERVER_ID => once(&mut server, Duid::new(data).ok_or(Malformed::Option)?)?,
                code::PREFERENCE => preference = *data.first().filter(|_| data.len() == 1).ok_or(Malformed::Option)?,
                code::RAPID_COMMIT => rapid_commit = true,
                code::STATUS_CODE => status = status_of(data)?,
                // §21.24: others are ignored.
                SOL_MAX_RT => {
                    let seconds = <[u8; 4]>::try_from(data).map(u32::from_be_bytes).map_err(|_| Malformed::Option)?;
                    let good = Some(seconds).filter(|it| (60..=86_400).contains(it));
                    sol_max_rt = good.map(|it| Duration::from_secs(it.into()));
                }
                code::IA_PD if data.first_chunk() == Some(&iaid.to_be_bytes()) => once(&mut ia, association(data)?)?,
                _ => {}
            }
        }
        let (client, server) = client.zip(server).ok_or(Malformed::Validation)?;
        let transaction = [header[1], header[2], header[3]];
        let ia = ia.flatten();
        Ok(Answer { kind, transaction, client, server, preference, rapid_commit, status, sol_max_rt, ia })
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::Duplicate),
    }
}

fn status_of(data: &[u8]) -> Result<u16, Malformed> {
    data.first_chunk::<2>().map(|two| u16::from_be_bytes(*two)).ok_or(Malformed::Option)
}

/// An IA_PD; none if its T1 is later than its T2 (§21.21: such a one is ignored).
fn association(data: &[u8]) -> Result<Option<Ia>, Malformed> {
    let (fixed, rest) = data.split_first_chunk::<12>().ok_or(Malformed::Option)?;
    let number = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let mut ia = Ia { t1: number(4), t2: number(8), ..Ia::default() };
    for (code, data) in Options::new(rest)?.iter() {
        match code {
            code::STATUS_CODE => ia.status = status_of(data)?,
            IA_PREFIX => {
                let Some(offered) = prefix(data)? else { continue };
                let known = |it: &Offered| (it.prefix, it.length) == (offered.prefix, offered.length);
                if ia.prefixes.iter().any(known) {
                    return Err(Malformed::Duplicate);
                }
                // §21.22: one that is preferred for longer than it is valid is ignored.
                if offered.preferred <= offered.valid && ia.prefixes.len() < 2 * PREFIXES_MAX {
                    ia.prefixes.push(offered);
                }
            }
            _ => {}
        }
    }
    Ok((ia.t2 == 0 || ia.t1 <= ia.t2).then_some(ia))
}

/// An IAPREFIX; none if it says that something is wrong with it.
fn prefix(data: &[u8]) -> Result<Option<Offered>, Malformed> {
    let (fixed, rest) = data.split_first_chunk::<25>().ok_or(Malformed::Option)?;
    let number = |at: usize| u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
    let address: [u8; 16] = fixed[9..].try_into().map_err(|_| Malformed::Option)?;
    let length = fixed[8];
    let mask = match length {
        0 => 0,
        1..=128 => u128::MAX << (128 - length),
        _ => return Err(Malformed::Option),
    };
    let mut status = status::SUCCESS;
    for (code, data) in Options::new(rest)?.iter() {
        if code == code::STATUS_CODE {
            status = status_of(data)?;
        }
    }
    // Bits beyond the length mean nothing.
    let prefix = Ipv6Addr::from_bits(u128::from_be_bytes(address) & mask);
    let offered = Offered { prefix, length, preferred: number(0), valid: number(4) };
    Ok((status == status::SUCCESS).then_some(offered))
}
