//! Of the BGP messages that BMP carries: what two OPENs agree on, and which IPv6 prefixes an UPDATE is about.
//!
//! Path attributes are passed over, all but the two that hold IPv6 routes (RFC 4760): what matters is whether a provider has a
//! route, not which. So there is little here that could be wrong, and nothing that a strange attribute could upset.

use super::message::{Malformed, Octets};
use super::table::Net;

/// Marker, length and type (RFC 4271 §4.1).
const HEADER_LEN: usize = 19;
const OPEN: u8 = 1;
const UPDATE: u8 = 2;
/// Optional parameter of an OPEN that holds capabilities (RFC 5492).
const CAPABILITIES: u8 = 2;
/// The capability of more than one path for a prefix (RFC 7911 §4).
const ADD_PATH: u8 = 69;
/// IPv6, unicast.
const IPV6_UNICAST: [u8; 3] = [0, 2, 1];
/// Path attributes.
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
/// Attribute flag: its length has two octets.
const EXTENDED: u8 = 0x10;

/// What an OPEN says of several paths for an IPv6 prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    pub(super) takes_paths: bool,
    pub(super) gives_paths: bool,
}

/// Body of the message that begins here, which is of type `wanted`.
fn message<'a>(rest: &mut Octets<'a>, wanted: u8) -> Result<Octets<'a>, Malformed> {
    let header = rest.array::<HEADER_LEN>()?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if header[..16] != [0xff; 16] || header[18] != wanted {
        return Err(Malformed::Bgp);
    }
    let body = length.checked_sub(HEADER_LEN).ok_or(Malformed::Bgp)?;
    Ok(Octets(rest.take(body)?))
}

/// The OPEN that begins here (RFC 4271 §4.2, RFC 9072).
pub(super) fn open(rest: &mut Octets<'_>) -> Result<Open, Malformed> {
    let mut body = message(rest, OPEN)?;
    let mut open = Open::default();
    // Version, AS number, hold time, identifier.
    body.take(9)?;
    let length = body.u8()?;
    let extended = length == 255 && body.0.first() == Some(&255);
    let mut parameters = if extended {
        body.u8()?;
        let length = body.u16()?;
        Octets(body.take(length.into())?)
    } else {
        Octets(body.take(length.into())?)
    };
    while !parameters.0.is_empty() {
        let kind = parameters.u8()?;
        let length = if extended { usize::from(parameters.u16()?) } else { usize::from(parameters.u8()?) };
        let mut value = Octets(parameters.take(length)?);
        while kind == CAPABILITIES && !value.0.is_empty() {
            let code = value.u8()?;
            let length = value.u8()?;
            let capability = value.take(length.into())?;
            let families = capability.chunks_exact(4).filter(|_| code == ADD_PATH);
            for family in families.filter(|family| family.starts_with(&IPV6_UNICAST)) {
                open.takes_paths |= family[3] & 1 != 0;
                open.gives_paths |= family[3] & 2 != 0;
            }
        }
    }
    Ok(open)
}

/// A prefix and its path identifier, which is 0 where there are none. Prefixes that cover no /64 are left out.
pub type Route = (Net, u32);

/// What an UPDATE says of IPv6 unicast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Routes that are gone.
    pub withdrawn: Vec<Route>,
    /// Routes that are there.
    pub announced: Vec<Route>,
    /// All routes there are have been told (RFC 4724 §2).
    pub end: bool,
}

/// Reads an UPDATE (RFC 4271 §4.3). `paths` says that its prefixes should have path identifiers; some routers strip them in what
/// they tell a station, so prefixes that make no sense with them are read without.
///
/// # Errors
/// It is none.
pub fn update(octets: &[u8], paths: bool) -> Result<Update, Malformed> {
    let mut body = message(&mut Octets(octets), UPDATE)?;
    // Routes of IPv4.
    let withdrawn = body.u16()?;
    body.take(withdrawn.into())?;
    let length = body.u16()?;
    let mut attributes = Octets(body.take(length.into())?);
    let (mut update, mut found, mut empty) = (Update::default(), 0, false);
    while !attributes.0.is_empty() {
        let [flags, kind] = attributes.array()?;
        let length = if flags & EXTENDED != 0 { usize::from(attributes.u16()?) } else { usize::from(attributes.u8()?) };
        let mut value = Octets(attributes.take(length)?);
        found += 1;
        if kind != MP_REACH && kind != MP_UNREACH {
            continue;
        }
        if value.array()? != IPV6_UNICAST {
            continue;
        }
        if kind == MP_UNREACH {
            empty |= value.0.is_empty();
            routes(value, paths, &mut update.withdrawn)?;
        } else {
            let next_hop = value.u8()?;
            value.take(next_hop.into())?;
            // What was the number of SNPAs.
            value.u8()?;
            routes(value, paths, &mut update.announced)?;
        }
    }
    update.end = empty && found == 1 && withdrawn == 0 && body.0.is_empty();
    Ok(update)
}

fn routes(rest: Octets<'_>, paths: bool, out: &mut Vec<Route>) -> Result<(), Malformed> {
    let before = out.len();
    if paths && listed(rest, true, out).is_ok() {
        return Ok(());
    }
    out.truncate(before);
    listed(rest, false, out)
}

/// Prefixes as RFC 4271 §4.3 writes them, or RFC 7911 §3. With path identifiers, bits behind a prefix have to be zero: that
/// is how a list without identifiers is told from one with them.
fn listed(mut rest: Octets<'_>, paths: bool, out: &mut Vec<Route>) -> Result<(), Malformed> {
    while !rest.0.is_empty() {
        let path = if paths { u32::from_be_bytes(rest.array()?) } else { 0 };
        let length = rest.u8()?;
        if length > 128 {
            return Err(Malformed::Prefix(length));
        }
        let octets = rest.take(usize::from(length).div_ceil(8))?;
        let mut address = [0; 16];
        address[..octets.len()].copy_from_slice(octets);
        let address = u128::from_be_bytes(address);
        if paths && address.checked_shl(length.into()).unwrap_or(0) != 0 {
            return Err(Malformed::Bgp);
        }
        if let Some(net) = Net::new((address >> 64) as u64, length) {
            out.push((net, path));
        }
    }
    Ok(())
}
