//! Frames of a site as they arrive at the box, and what the box should have made of them.

use dataplane::wire::ContextTag;
use dataplane::wire::shim6::{Message, Options, PayloadHeader};

use crate::site::{BOX_MAC, OTHER_MAC, Site};

/// Which way a frame goes through the box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From a host of the site to the provider.
    Out,
    /// From the provider to a host.
    In,
}

impl Way {
    /// Both.
    pub const BOTH: [Way; 2] = [Way::Out, Way::In];

    /// Its place in arrays of two.
    pub fn index(self) -> usize {
        self as usize
    }
}

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const UDP: usize = 8;
/// Octets of the payload header.
const SHIM: usize = PayloadHeader::LEN;
/// The smallest frame a host sends here: without its checksum, as software devices carry it.
pub const SMALLEST: usize = 64;
/// The largest.
pub const LARGEST: usize = 1514;
/// The smallest frame of a host with room for a [`Stamp`].
pub const STAMPED: usize = ETHERNET + IPV6 + UDP + Stamp::LEN;

/// What a frame carries through the box, to be looked at behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// When it was sent, in nanoseconds of the generator's clock.
    pub sent: u64,
    /// Its number among those of one thread and way.
    pub sequence: u32,
    /// Its context.
    pub context: u32,
}

impl Stamp {
    const LEN: usize = 16;

    fn emit(self) -> [u8; Stamp::LEN] {
        let mut octets = [0; Stamp::LEN];
        octets[..8].copy_from_slice(&self.sent.to_be_bytes());
        octets[8..12].copy_from_slice(&self.sequence.to_be_bytes());
        octets[12..].copy_from_slice(&self.context.to_be_bytes());
        octets
    }

    fn read(octets: &[u8]) -> Option<Stamp> {
        let (sent, rest) = octets.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let context = u32::from_be_bytes(*rest.first_chunk()?);
        Some(Stamp { sent: u64::from_be_bytes(*sent), sequence: u32::from_be_bytes(*sequence), context })
    }
}

/// Octets of a frame whose host's frame has `size`: what comes from the provider has a payload header more.
pub fn length(way: Way, size: usize) -> usize {
    match way {
        Way::Out => size,
        Way::In => size + SHIM,
    }
}

/// Writes a frame into `octets`, all of them; those of a host's frame are [`SMALLEST`] to [`LARGEST`], and a stamp is left
/// out where there is no room for it.
#[inline]
pub fn write(octets: &mut [u8], site: &Site, way: Way, stamp: Stamp) {
    let (ulids, locators) = (site.ulids(stamp.context), site.locators(stamp.context));
    let (source, target, shim) = match way {
        Way::Out => (ulids.local.0, ulids.peer.0, 0),
        Way::In => (locators.peer.0, locators.local.0, SHIM),
    };
    octets[..6].copy_from_slice(&BOX_MAC.0);
    octets[6..12].copy_from_slice(&OTHER_MAC.0);
    octets[12..18].copy_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0]);
    let payload = octets.len() - ETHERNET - IPV6;
    octets[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
    octets[20..22].copy_from_slice(&[if shim == 0 { 17 } else { 140 }, 64]);
    octets[22..38].copy_from_slice(&source.octets());
    octets[38..54].copy_from_slice(&target.octets());
    if shim > 0 {
        let header = PayloadHeader { next_header: 17, tag: site.tag(stamp.context) };
        octets[54..62].copy_from_slice(&header.emit());
    }
    let udp = &mut octets[ETHERNET + IPV6 + shim..];
    let length = udp.len() as u16;
    udp[..4].copy_from_slice(&[4, stamp.context as u8, 4, 0]);
    udp[4..6].copy_from_slice(&length.to_be_bytes());
    udp[6..8].copy_from_slice(&[0, 0]);
    if let Some(room) = udp[UDP..].first_chunk_mut() {
        *room = stamp.emit();
    }
}

/// Writes an I1 (RFC 5533 §5.4) between a context's locators over a provider's frame of that context, as a stranger would send who
/// knows both; how many octets it takes.
pub fn write_i1(octets: &mut [u8], context: u32) -> usize {
    let i1 = Message::I1 {
        initiator_tag: ContextTag::truncate(context.into()),
        initiator_nonce: context,
        options: Options::default(),
    };
    // It has no option that could be out of place.
    let i1 = i1.emit().unwrap_or_default();
    let length = ETHERNET + IPV6 + i1.len();
    octets[18..20].copy_from_slice(&(i1.len() as u16).to_be_bytes());
    octets[ETHERNET + IPV6..length].copy_from_slice(&i1);
    length
}

/// The stamp in a frame that came out of the box, or went through something that leaves frames as long as they were; none
/// when the frame was too small for one.
#[inline]
pub fn stamp(octets: &[u8], way: Way, translated: bool) -> Option<Stamp> {
    // What went in without a payload header comes out with one, and the other way round.
    let shim = if (way == Way::Out) == translated { SHIM } else { 0 };
    Stamp::read(octets.get(ETHERNET + IPV6 + shim + UDP..)?)
}

/// Whether a frame is what the box has to make of one of this context.
pub fn is_translated(octets: &[u8], site: &Site, way: Way, context: u32) -> bool {
    let (ulids, locators) = (site.ulids(context), site.locators(context));
    let (source, target, next_header) = match way {
        Way::Out => (locators.local.0, locators.peer.0, 140),
        Way::In => (ulids.peer.0, ulids.local.0, 17),
    };
    let header = PayloadHeader { next_header: 17, tag: site.peer_tag(context) }.emit();
    let behind = if way == Way::Out { &header[..] } else { &[] };
    octets.get(..6) == Some(&OTHER_MAC.0[..])
        && octets.get(20..22) == Some(&[next_header, 63])
        && octets.get(22..38) == Some(&source.octets()[..])
        && octets.get(38..54) == Some(&target.octets()[..])
        && octets.get(54..).is_some_and(|rest| rest.starts_with(behind))
}

/// Sizes of hosts' frames, taken in turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes(Vec<usize>);

impl Sizes {
    /// The simple mix that everybody measures with: seven small, four middling and one large of twelve.
    pub const IMIX: [usize; 12] = [64, 570, 64, 64, 570, 64, 1514, 64, 570, 64, 570, 64];

    /// `imix`, or octets of one size.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Sizes, String> {
        if text == "imix" {
            return Ok(Sizes(Sizes::IMIX.to_vec()));
        }
        let size = text.parse().map_err(|_| format!("{text} is neither imix nor a number of octets"))?;
        if !(SMALLEST..=LARGEST).contains(&size) {
            return Err(format!("a frame has {SMALLEST} to {LARGEST} octets"));
        }
        Ok(Sizes(vec![size]))
    }

    /// That of the `n`th frame.
    #[inline]
    pub fn of(&self, n: usize) -> usize {
        match self.0[..] {
            [only] => only,
            ref all => all[n % all.len()],
        }
    }

    /// The mean, in octets.
    pub fn mean(&self) -> f64 {
        self.0.iter().sum::<usize>() as f64 / self.0.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_found_again_before_and_behind_the_box() {
        let site = Site::new(1000, 2);
        for way in Way::BOTH {
            let given = Stamp { sent: 5, sequence: 6, context: 777 };
            let mut octets = vec![0; length(way, STAMPED)];
            write(&mut octets, &site, way, given);
            assert_eq!(stamp(&octets, way, false), Some(given));
            assert!(!is_translated(&octets, &site, way, 777), "nobody has translated it");
            let mut small = vec![0; length(way, SMALLEST)];
            write(&mut small, &site, way, given);
            assert_eq!(stamp(&small, way, false), None, "there is no room");
        }
    }

    #[test]
    fn sizes_are_told_or_refused() {
        assert_eq!(Sizes::parse("78").map(|sizes| sizes.of(5)), Ok(78));
        assert_eq!(Sizes::parse("imix").map(|sizes| sizes.of(6)), Ok(1514));
        assert!(Sizes::parse("63").is_err() && Sizes::parse("1515").is_err() && Sizes::parse("large").is_err());
    }
}
