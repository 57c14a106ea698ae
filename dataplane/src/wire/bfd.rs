//! BFD Control packets (RFC 5880 §4.1), which boxes carry in an option of Shim6's Keepalives (docs/decisions: path liveness).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-----+---------+---+-+-+-+-+-+-+---------------+---------------+
//! |Vers |  Diag   |Sta|P|F|C|A|D|M|  Detect Mult  |    Length     |
//! +-----+---------+---+-+-+-+-+-+-+---------------+---------------+
//! |                       My Discriminator                        |
//! +---------------------------------------------------------------+
//! |                      Your Discriminator                       |
//! +---------------------------------------------------------------+
//! |                    Desired Min TX Interval                    |
//! +---------------------------------------------------------------+
//! |                   Required Min RX Interval                    |
//! +---------------------------------------------------------------+
//! |                 Required Min Echo RX Interval                 |
//! +---------------------------------------------------------------+
//! ```
//!
//! What is parsed has passed the checks of §6.8.6 that need no session. There is no authentication section: the tag of the
//! context and both discriminators stand for it.

/// Octets of a packet without authentication.
pub const LEN: usize = 24;
const VERSION: u8 = 1;

/// State of a session (RFC 5880 §4.1, Sta).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// 0: somebody does not want it up.
    AdminDown,
    /// 1: the peer is not heard, or has just been.
    Down,
    /// 2: the peer is heard, and does not say yet that it hears us.
    Init,
    /// 3: both hear each other.
    Up,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

    /// The state with this number, of which only two bits count.
    pub const fn from_code(code: u8) -> State {
        match code & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    /// The number of this state.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// Why a session last left Up (RFC 5880 §4.1, Diag); of those, what a box can have to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Diagnostic {
    /// 0
    None,
    /// 1: nothing came for the Detection Time.
    Expired,
    /// 3: the peer said that it is down.
    NeighborDown,
    /// 7: administratively down.
    AdminDown,
    /// Anything else, of five bits.
    Other(u8),
}

impl Diagnostic {
    /// The diagnostic with this number, of which five bits count.
    pub const fn from_code(code: u8) -> Diagnostic {
        match code & 0x1f {
            0 => Diagnostic::None,
            1 => Diagnostic::Expired,
            3 => Diagnostic::NeighborDown,
            7 => Diagnostic::AdminDown,
            other => Diagnostic::Other(other),
        }
    }

    /// Its number.
    pub const fn code(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::Expired => 1,
            Diagnostic::NeighborDown => 3,
            Diagnostic::AdminDown => 7,
            Diagnostic::Other(code) => code & 0x1f,
        }
    }
}

/// A Control packet. Intervals are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Diag.
    pub diagnostic: Diagnostic,
    /// Sta.
    pub state: State,
    /// P: the sender wants an answer with F.
    pub poll: bool,
    /// F: this is the answer to a packet with P.
    pub is_final: bool,
    /// Detect Mult; not zero.
    pub multiplier: u8,
    /// My Discriminator: the sender's name for the session; not zero.
    pub mine: u32,
    /// Your Discriminator: the receiver's, as far as the sender knows it; zero otherwise.
    pub yours: u32,
    /// Desired Min TX Interval.
    pub desired_min_tx: u32,
    /// Required Min RX Interval.
    pub required_min_rx: u32,
}

impl Packet {
    /// Reads a packet; none if §6.8.6 has it discarded whatever the session: another version, a length that is not that of what is
    /// there, no multiplier or discriminator, authentication, multipoint, or no Your Discriminator from somebody who is not down.
    /// Demand mode is not taken part in (§6.6), so a packet that asks for it is none either.
    pub fn parse(octets: &[u8; LEN]) -> Option<Packet> {
        let word = |at: usize| u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        let [first, flags, multiplier, length, ..] = *octets;
        let state = State::from_code(flags >> 6);
        let (authenticated, demand, multipoint) = (flags & 4 != 0, flags & 2 != 0, flags & 1 != 0);
        let (mine, yours) = (word(4), word(8));
        let nameless = yours == 0 && !matches!(state, State::Down | State::AdminDown);
        let wrong = first >> 5 != VERSION
            || usize::from(length) != LEN
            || authenticated
            || demand
            || multipoint
            || multiplier == 0
            || mine == 0
            || nameless;
        (!wrong).then_some(Packet {
            diagnostic: Diagnostic::from_code(first),
            state,
            poll: flags & 0x20 != 0,
            is_final: flags & 0x10 != 0,
            multiplier,
            mine,
            yours,
            desired_min_tx: word(12),
            required_min_rx: word(16),
        })
    }

    /// Its octets: C is clear, since a box that restarts forgets (§4.1), and there is no Echo function.
    pub fn emit(&self) -> [u8; LEN] {
        let mut octets = [0; LEN];
        octets[0] = VERSION << 5 | self.diagnostic.code();
        octets[1] = self.state.code() << 6 | u8::from(self.poll) << 5 | u8::from(self.is_final) << 4;
        octets[2] = self.multiplier;
        octets[3] = LEN as u8;
        let words = [self.mine, self.yours, self.desired_min_tx, self.required_min_rx];
        for (at, word) in words.into_iter().enumerate() {
            octets[4 + at * 4..8 + at * 4].copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UP: Packet = Packet {
        diagnostic: Diagnostic::None,
        state: State::Up,
        poll: true,
        is_final: false,
        multiplier: 3,
        mine: 0x0102_0304,
        yours: 0x0506_0708,
        desired_min_tx: 50_000,
        required_min_rx: 50_000,
    };

    #[test]
    fn a_packet_is_what_the_rfc_draws() {
        let octets = [0x20, 0xe0, 3, 24, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50, 0, 0, 0, 0];
        assert_eq!(UP.emit(), octets);
        assert_eq!(Packet::parse(&octets), Some(UP));
        let down =
            Packet { state: State::Down, diagnostic: Diagnostic::Expired, poll: false, is_final: true, yours: 0, ..UP };
        assert_eq!(down.emit()[..2], [0x21, 0x50]);
        assert_eq!(Packet::parse(&down.emit()), Some(down));
    }

    // RFC 5880 §6.8.6
    #[test]
    fn what_the_rfc_has_discarded_is_no_packet() {
        let spoilt = |at: usize, octet: u8| {
            let mut octets = UP.emit();
            octets[at] = octet;
            Packet::parse(&octets)
        };
        assert!(spoilt(0, 0x00).is_none() && spoilt(0, 0x40).is_none(), "another version");
        assert!(spoilt(3, 23).is_none() && spoilt(3, 26).is_none(), "another length");
        assert!(spoilt(2, 0).is_none(), "no multiplier");
        for flag in [4, 2, 1] {
            assert!(spoilt(1, 0xe0 | flag).is_none(), "authentication, demand, multipoint");
        }
        assert!(spoilt(1, 0xe8).is_some(), "C is the sender's affair");
        assert!(Packet::parse(&Packet { mine: 0, ..UP }.emit()).is_none());
        for state in State::ALL {
            let nameless = Packet { yours: 0, state, ..UP };
            let down = matches!(state, State::Down | State::AdminDown);
            assert_eq!(Packet::parse(&nameless.emit()), down.then_some(nameless));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(octets: [u8; LEN]) {
            if let Some(packet) = Packet::parse(&octets) {
                prop_assert_eq!(Packet::parse(&packet.emit()), Some(packet));
            }
        }
    }
}
