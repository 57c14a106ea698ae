//! Packets in a file that Wireshark opens (pcapng), each with what was decided about it as its comment.
//!
//! ```text
//! section header, then as they are needed: a block for each port, a block for each packet
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// Ethernet.
const LINK_TYPE: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_COMMENT: u16 = 1;
const OPTION_NAME: u16 = 2;
const OPTION_FLAGS: u16 = 2;

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    In,
    Out,
}

/// A packet with what is said of it.
pub(super) struct Entry<'a> {
    pub(super) port: &'a str,
    pub(super) way: Way,
    /// Seconds since 1970.
    pub(super) at_s: f64,
    /// What there is of it.
    pub(super) octets: &'a [u8],
    /// Octets of all of it.
    pub(super) length: u32,
    pub(super) comment: &'a str,
}

/// Writes packets to a file.
pub(super) struct Writer<W> {
    out: W,
    ports: BTreeMap<String, u32>,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub(super) fn new(out: W) -> io::Result<Writer<W>> {
        let mut writer = Writer { out, ports: BTreeMap::new() };
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend(1u16.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        // The length of the section is not known.
        body.extend(u64::MAX.to_le_bytes());
        writer.block(SECTION, body)?;
        Ok(writer)
    }

    /// Writes a packet, and the port it belongs to if that is new.
    pub(super) fn packet(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let port = self.port(entry.port)?;
        let micros = (entry.at_s * 1e6) as u64;
        let mut body = Vec::with_capacity(entry.octets.len() + entry.comment.len() + 64);
        body.extend(port.to_le_bytes());
        body.extend(((micros >> 32) as u32).to_le_bytes());
        body.extend((micros as u32).to_le_bytes());
        body.extend((entry.octets.len() as u32).to_le_bytes());
        body.extend(entry.length.max(entry.octets.len() as u32).to_le_bytes());
        padded(&mut body, entry.octets);
        let flags: u32 = if entry.way == Way::In { 1 } else { 2 };
        option(&mut body, OPTION_FLAGS, &flags.to_le_bytes());
        option(&mut body, OPTION_COMMENT, entry.comment.as_bytes());
        option(&mut body, OPTION_END, &[]);
        self.block(PACKET, body)?;
        // Whoever looks while it goes on sees whole packets.
        self.out.flush()
    }

    fn port(&mut self, name: &str) -> io::Result<u32> {
        if let Some(&number) = self.ports.get(name) {
            return Ok(number);
        }
        let number = self.ports.len() as u32;
        let mut body = Vec::new();
        body.extend(LINK_TYPE.to_le_bytes());
        body.extend(0u16.to_le_bytes());
        body.extend(0u32.to_le_bytes());
        option(&mut body, OPTION_NAME, name.as_bytes());
        option(&mut body, OPTION_END, &[]);
        self.block(INTERFACE, body)?;
        self.ports.insert(name.to_owned(), number);
        Ok(number)
    }

    fn block(&mut self, kind: u32, body: Vec<u8>) -> io::Result<()> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&length)?;
        self.out.write_all(&body)?;
        self.out.write_all(&length)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // Longer ones do not fit the field; a comment cut short is better than none.
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    padded(body, value);
}

fn padded(body: &mut Vec<u8>, octets: &[u8]) {
    body.extend(octets);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_ports_are_named_once() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out).unwrap();
        let entry = |port, way, octets| Entry { port, way, at_s: 1.5, octets, length: 90, comment: "out: port x" };
        writer.packet(&entry("lan", Way::In, &[1, 2, 3])).unwrap();
        writer.packet(&entry("x", Way::Out, &[1, 2, 3, 4])).unwrap();
        writer.packet(&entry("lan", Way::In, &[])).unwrap();
        let mut kinds = Vec::new();
        let mut rest = &out[..];
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let length = word(4) as usize;
            assert!(length.is_multiple_of(4) && word(length - 4) as usize == length);
            kinds.push(word(0));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET]);
        let comments = out.windows(11).filter(|window| *window == b"out: port x").count();
        assert_eq!(comments, 3);
    }

    /// Read by Wireshark's own code, where it is installed.
    #[test]
    fn wireshark_reads_packets_and_comments() {
        let file = std::env::temp_dir().join(format!("pshim6-trace-{}.pcapng", std::process::id()));
        let mut writer = Writer::new(std::fs::File::create(&file).unwrap()).unwrap();
        let octets = [&[0x33; 12][..], &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 59, 64], &[0xfc; 16], &[0xfd; 16]].concat();
        let entry = Entry {
            port: "lan",
            way: Way::In,
            at_s: 1e9,
            octets: &octets,
            length: 54,
            comment: "dropped: drop_hop_limit",
        };
        writer.packet(&entry).unwrap();
        let fields = ["-T", "fields", "-e", "frame.comment", "-e", "frame.interface_name", "-e", "ipv6.src"];
        let said = std::process::Command::new("tshark").arg("-r").arg(&file).args(fields).output();
        let _ = std::fs::remove_file(&file);
        match said {
            Ok(said) => {
                let text = String::from_utf8_lossy(&said.stdout).into_owned();
                assert_eq!(
                    text.trim(),
                    "dropped: drop_hop_limit\tlan\tfcfc:fcfc:fcfc:fcfc:fcfc:fcfc:fcfc:fcfc",
                    "{said:?}"
                );
            }
            Err(error) => {
                // Past the harness, which keeps what a test that passes prints; `scripts/test` counts it.
                assert!(std::env::var_os("PSHIM6_TOOLS").is_none(), "tshark cannot be started: {error}");
                let _ = writeln!(std::io::stderr(), "\nnot tried, tshark cannot be started: {error}");
            }
        }
    }
}
