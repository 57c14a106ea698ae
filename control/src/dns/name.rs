//! Domain names in wire form (RFC 1035 §3.1), letters in lower case, so that equal names are equal octets (RFC 4343).

use std::fmt;
use std::net::Ipv6Addr;

/// Octets of the longest name, the root's among them (RFC 1035 §2.3.4).
pub const NAME_MAX: usize = 255;
/// Pointers of one name: each needs a label beside it to be of any use, and a name has no more of those.
const POINTERS_MAX: usize = 127;
/// Octets of the longest label.
const LABEL_MAX: usize = 63;

/// A name: whole, uncompressed, in lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

/// Why a name is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A label is empty or longer than 63 octets.
    #[error("a label has 1 to 63 octets")]
    Label,
    /// The whole is longer than 255 octets.
    #[error("a name has at most 255 octets")]
    Long,
}

impl Name {
    /// The root.
    pub fn root() -> Name {
        Name(Box::new([0]))
    }

    /// From uncompressed wire form, which must be exactly one name; letters may have either case.
    pub fn from_wire(octets: &[u8]) -> Option<Name> {
        (whole(octets) == Some(octets.len())).then(|| Name(octets.to_ascii_lowercase().into_boxed_slice()))
    }

    /// From text without escapes, with or without the last dot.
    ///
    /// # Errors
    /// [`NameError`] when the text is no name.
    pub fn from_text(text: &str) -> Result<Name, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut octets = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            if label.is_empty() || label.len() > LABEL_MAX {
                return Err(NameError::Label);
            }
            octets.push(label.len() as u8);
            octets.extend(label.bytes().map(|letter| letter.to_ascii_lowercase()));
        }
        octets.push(0);
        if octets.len() > NAME_MAX {
            return Err(NameError::Long);
        }
        Ok(Name(octets.into_boxed_slice()))
    }

    /// The name under `ip6.arpa` at which an address is looked up backwards (RFC 3596 §2.5).
    pub fn of_address(address: Ipv6Addr) -> Name {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut octets = Vec::with_capacity(74);
        for octet in address.octets().iter().rev() {
            for digit in [octet & 15, octet >> 4] {
                octets.extend([1, DIGITS[usize::from(digit)]]);
            }
        }
        octets.extend(b"\x03ip6\x04arpa\x00");
        Name(octets.into_boxed_slice())
    }

    /// The address whose name under `ip6.arpa` this is.
    pub fn address(&self) -> Option<Ipv6Addr> {
        let digits = self.0.strip_suffix(b"\x03ip6\x04arpa\x00").filter(|digits| digits.len() == 64)?;
        let mut bits = 0u128;
        for label in digits.chunks_exact(2).rev() {
            let &[1, digit] = label else { return None };
            bits = bits << 4 | u128::from((digit as char).to_digit(16)?);
        }
        Some(Ipv6Addr::from_bits(bits))
    }

    /// As it goes on the wire.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, without the root's.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.0;
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first().filter(|(len, _)| **len > 0)?;
            let (label, after) = after.split_at_checked(usize::from(len))?;
            rest = after;
            Some(label)
        })
    }

    /// The name without its first label; none of the root.
    pub fn parent(&self) -> Option<Name> {
        let first = usize::from(*self.0.first().filter(|len| **len > 0)?);
        Name::from_wire(self.0.get(first + 1..)?)
    }

    /// Whether this is `zone` or a name below it.
    pub fn is_within(&self, zone: &Name) -> bool {
        let mut rest: &[u8] = &self.0;
        loop {
            if rest == zone.wire() {
                return true;
            }
            match rest.split_first() {
                Some((&len, after)) if len > 0 && after.len() > usize::from(len) => rest = &after[usize::from(len)..],
                _ => return false,
            }
        }
    }
}

/// Length of the uncompressed name at the start of some octets, if one is there.
pub(super) fn whole(octets: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let len = usize::from(*octets.get(at)?);
        at += 1;
        match len {
            0 => return (at <= NAME_MAX).then_some(at),
            1..=LABEL_MAX if at + len < NAME_MAX => at += len,
            _ => return None,
        }
    }
}

/// The name that begins at `at` in a message, pointers followed (RFC 1035 §4.1.4), and where what follows it begins. Every
/// pointer has to point to before where its name began, and no name needs more of them than it has labels: a message full of
/// ladders would be read for a tenth of a second.
pub(super) fn read(message: &[u8], at: usize) -> Option<(Name, usize)> {
    let mut octets = Vec::with_capacity(64);
    let (mut place, mut limit, mut after) = (at, at, None);
    let mut pointers = 0;
    loop {
        let len = usize::from(*message.get(place)?);
        match len {
            0 => {
                octets.push(0);
                return Some((Name(octets.into_boxed_slice()), after.unwrap_or(place + 1)));
            }
            1..=LABEL_MAX => {
                let label = message.get(place + 1..place + 1 + len)?;
                if octets.len() + 1 + len >= NAME_MAX {
                    return None;
                }
                octets.push(len as u8);
                octets.extend(label.iter().map(u8::to_ascii_lowercase));
                place += 1 + len;
            }
            0xc0.. => {
                let target = (len & 0x3f) << 8 | usize::from(*message.get(place + 1)?);
                after = after.or(Some(place + 2));
                pointers += 1;
                if target >= limit || pointers > POINTERS_MAX {
                    return None;
                }
                (place, limit) = (target, target);
            }
            _ => return None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' => write!(out, "\\{}", octet as char)?,
                    b'!'..=b'~' => write!(out, "{}", octet as char)?,
                    _ => write!(out, "\\{octet:03}")?,
                }
            }
            out.write_str(".")?;
        }
        if self.0.len() == 1 { out.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ladder_of_pointers_is_no_name() {
        let ladder = |rungs: usize| {
            let mut message = vec![0];
            for rung in 0..rungs {
                let below = if rung == 0 { 0 } else { 2 * rung - 1 };
                message.extend([0xc0 | (below >> 8) as u8, below as u8]);
            }
            message
        };
        let read = |rungs: usize| super::read(&ladder(rungs), 2 * rungs - 1);
        assert_eq!(read(127), Some((Name::root(), 255)));
        assert_eq!(read(128), None);
        assert_eq!(read(8000), None);
    }

    #[test]
    fn names_are_read_shown_and_compared_without_case() {
        let name = Name::from_text("Web.A.Example.").unwrap();
        assert_eq!(name, Name::from_wire(b"\x03wEb\x01a\x07eXample\x00").unwrap());
        assert_eq!(name.to_string(), "web.a.example.");
        assert!(name.is_within(&Name::from_text("a.example").unwrap()));
        assert!(name.is_within(&Name::root()) && name.is_within(&name));
        assert!(!Name::from_text("weba.example").unwrap().is_within(&Name::from_text("a.example").unwrap()));
        assert_eq!(Name::from_text("a..b"), Err(NameError::Label));
        assert_eq!(Name::from_text(&"x".repeat(64)), Err(NameError::Label));
        assert_eq!(Name::from_text(&"abc.".repeat(64)), Err(NameError::Long));
        assert_eq!(Name::from_text(".").unwrap(), Name::root());
    }

    // RFC 3596 §2.5's own example.
    #[test]
    fn addresses_have_names() {
        let address = "4321:0:1:2:3:4:567:89ab".parse().unwrap();
        let name = Name::of_address(address);
        let text = "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa.";
        assert_eq!(name.to_string(), text);
        assert_eq!(name.address(), Some(address));
        assert_eq!(Name::from_text("1.ip6.arpa").unwrap().address(), None);
    }

    #[test]
    fn pointers_go_back_or_nowhere() {
        let message = b"\x01a\x00\x01b\xc0\x00\xc0\x07\xc0\x09";
        assert_eq!(read(message, 3), Some((Name::from_text("b.a").unwrap(), 7)));
        assert_eq!(read(message, 7), None, "to itself");
        assert_eq!(read(message, 9), None);
        assert_eq!(read(b"\x3fabc", 0), None);
        assert_eq!(read(b"\x80a", 0), None);
    }
}
