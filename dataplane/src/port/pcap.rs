//! A port that receives what a capture holds and writes what is sent to another: for golden packets and for reliving a
//! capture. Reads the classic format in both byte orders, with micro- and nanoseconds; writes microseconds, all zero, so
//! that equal packets make equal files.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::memory::HeapFrame;
use super::{Frame, Port};

const LINKTYPE_ETHERNET: u32 = 1;
const MICROSECONDS: u32 = 0xa1b2_c3d4;
const NANOSECONDS: u32 = 0xa1b2_3c4d;
/// More than any frame; a larger record is a broken file.
const RECORD_MAX: u32 = 1 << 18;

/// A port between two captures.
pub struct PcapPort {
    input: Option<Reader>,
    output: BufWriter<Box<dyn Write + Send>>,
    /// The first thing that went wrong; from then on the port is silent.
    fault: Option<io::Error>,
}

struct Reader {
    source: Box<dyn Read + Send>,
    big_endian: bool,
}

impl PcapPort {
    /// Receives the packets of `input` and writes what is sent to `output`.
    ///
    /// # Errors
    /// When a file cannot be opened or `input` is not a capture of Ethernet frames.
    pub fn open(input: &Path, output: &Path) -> io::Result<PcapPort> {
        PcapPort::new(BufReader::new(File::open(input)?), File::create(output)?)
    }

    /// The same for anything that can be read and written.
    ///
    /// # Errors
    /// When `input` is not a capture of Ethernet frames or `output` takes nothing.
    pub fn new(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> io::Result<PcapPort> {
        let mut output: BufWriter<Box<dyn Write + Send>> = BufWriter::new(Box::new(output));
        for word in [MICROSECONDS, 2 | 4 << 16, 0, 0, RECORD_MAX, LINKTYPE_ETHERNET] {
            output.write_all(&word.to_le_bytes())?;
        }
        output.flush()?;
        Ok(PcapPort { input: Some(Reader::new(Box::new(input))?), output, fault: None })
    }

    /// Whether every packet of the input was received.
    pub fn is_done(&self) -> bool {
        self.input.is_none()
    }

    /// What went wrong, if anything did.
    pub fn fault(&self) -> Option<&io::Error> {
        self.fault.as_ref()
    }

    fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        let length = u32::try_from(octets.len()).map_err(io::Error::other)?;
        for word in [0, 0, length, length] {
            self.output.write_all(&word.to_le_bytes())?;
        }
        self.output.write_all(octets)
    }
}

impl Reader {
    fn new(mut source: Box<dyn Read + Send>) -> io::Result<Reader> {
        let mut header = [0; 24];
        source.read_exact(&mut header)?;
        let [a, b, c, d, ..] = header;
        let big_endian = match (u32::from_le_bytes([a, b, c, d]), u32::from_be_bytes([a, b, c, d])) {
            (MICROSECONDS | NANOSECONDS, _) => false,
            (_, MICROSECONDS | NANOSECONDS) => true,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "not a pcap file")),
        };
        let reader = Reader { source, big_endian };
        let [.., w, x, y, z] = header;
        if reader.word([w, x, y, z]) != LINKTYPE_ETHERNET {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a capture of Ethernet frames"));
        }
        Ok(reader)
    }

    fn word(&self, octets: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(octets) } else { u32::from_le_bytes(octets) }
    }

    /// The next packet; none at the end. A record that ends early ends the capture too.
    fn next(&mut self) -> io::Result<Option<HeapFrame>> {
        let mut record = [0; 16];
        match self.source.read_exact(&mut record) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let [.., a, b, c, d, _, _, _, _] = record;
        let length = self.word([a, b, c, d]);
        if length > RECORD_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a record of {length} octets")));
        }
        let mut octets = vec![0; length as usize];
        self.source.read_exact(&mut octets)?;
        Ok(Some(HeapFrame::new(&octets)))
    }
}

impl Port<HeapFrame> for PcapPort {
    fn receive(&mut self, burst: &mut Vec<HeapFrame>) {
        while burst.len() < burst.capacity() {
            let Some(input) = &mut self.input else { return };
            match input.next() {
                Ok(Some(frame)) => burst.push(frame),
                Ok(None) => self.input = None,
                Err(error) => {
                    self.input = None;
                    self.fault.get_or_insert(error);
                }
            }
        }
    }

    fn transmit(&mut self, burst: &mut Vec<HeapFrame>) {
        for frame in burst.drain(..) {
            if let Err(error) = self.write(frame.bytes()) {
                self.fault.get_or_insert(error);
            }
        }
        if let Err(error) = self.output.flush() {
            self.fault.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sent(frames: &[&[u8]]) -> Vec<u8> {
        let out = Shared::default();
        let mut port = PcapPort::new(Cursor::new(header(false)), out.clone()).unwrap();
        port.transmit(&mut frames.iter().map(|octets| HeapFrame::new(octets)).collect());
        assert!(port.fault().is_none());
        out.0.lock().unwrap().clone()
    }

    fn header(big_endian: bool) -> Vec<u8> {
        let words = [MICROSECONDS, if big_endian { 2 << 16 | 4 } else { 2 | 4 << 16 }, 0, 0, 65535, LINKTYPE_ETHERNET];
        words.iter().flat_map(|word| if big_endian { word.to_be_bytes() } else { word.to_le_bytes() }).collect()
    }

    fn received(file: Vec<u8>) -> (Vec<Vec<u8>>, bool) {
        let mut port = PcapPort::new(Cursor::new(file), io::sink()).unwrap();
        let mut all = Vec::new();
        while !port.is_done() {
            let mut burst = Vec::with_capacity(2);
            port.receive(&mut burst);
            all.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        }
        (all, port.fault().is_some())
    }

    #[test]
    fn what_was_sent_can_be_received() {
        let frames: [&[u8]; 3] = [&[1; 60], &[], &[2; 1514]];
        assert_eq!(received(sent(&frames)), (frames.map(<[u8]>::to_vec).to_vec(), false));
    }

    #[test]
    fn files_of_the_other_byte_order_are_read() {
        let mut file = header(true);
        for word in [7u32, 7, 3, 3] {
            file.extend(word.to_be_bytes());
        }
        file.extend([9; 3]);
        assert_eq!(received(file), (vec![vec![9; 3]], false));
    }

    #[test]
    fn broken_files_end_with_a_fault_and_no_panic() {
        let whole = sent(&[&[1; 60]]);
        assert_eq!(received(whole[..whole.len() - 1].to_vec()), (vec![], true));
        let mut huge = header(false);
        huge.extend([0xff; 16]);
        assert_eq!(received(huge), (vec![], true));
        assert!(PcapPort::new(Cursor::new(vec![0; 24]), io::sink()).is_err());
    }
}
