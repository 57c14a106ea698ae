//! Shim6 and REAP on the wire (RFC 5533 §5, RFC 5534 §5).
//!
//! [`Message`] is what a control message means. [`Message::parse`] and [`Message::emit`] go between it and the octets
//! of a Shim6 header, [`ControlPacket::parse`] and [`emit_packet`] between it and a whole IPv6 packet.
//! [`ControlView`] reads single fields where they lie. [`PayloadHeader`] is the other kind of Shim6 header, the one
//! in front of payload.
//!
//! ```
//! use dataplane::wire::ContextTag;
//! use dataplane::wire::shim6::{Message, Options};
//!
//! let tag = ContextTag::new(0x1234_5678_9abc).unwrap();
//! let message = Message::UpdateAck { receiver_tag: tag, request_nonce: 0xdead_beef, options: Options::NONE };
//! let octets = message.emit()?;
//! assert_eq!(octets.len(), message.buffer_len());
//! assert_eq!(Message::parse(&octets), Ok(message));
//! # Ok::<(), dataplane::wire::shim6::EmitError>(())
//! ```

mod emit;
mod kind;
pub mod packet;
mod parse;
pub mod payload;
pub mod repr;
#[cfg(test)]
mod tests;
pub mod udp;
pub mod view;

pub use emit::{EmitError, HEADER_MAX};
pub use kind::{MessageType, OptionType};
pub use packet::{ControlPacket, PacketError, emit_packet};
pub use payload::{PayloadError, SpliceError};
pub use repr::*;
pub use udp::{UdpFlow, UdpPorts};
pub use view::{ControlView, ParseError, RawOption, RawOptions};
