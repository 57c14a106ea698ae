//! Captures of made-up traffic, for devices that replay them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use crate::choice::{Random, permutation};
use crate::frames::{Sizes, Stamp, Way, length, write, write_i1};
use crate::site::Site;

/// Writes a frame of each context of `site` to `path`, in an order that looks random: those alone that `wanted` says yes to,
/// for devices with several queues. How many there are. Of a provider's frames each `flood`th is an I1 in the place of payload.
///
/// # Errors
/// When the file cannot be written.
pub fn write_all(
    path: &Path,
    site: &Site,
    way: Way,
    sizes: &Sizes,
    flood: Option<NonZeroUsize>,
    wanted: impl Fn(u32) -> bool,
) -> io::Result<u64> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    for word in [0xa1b2_c3d4u32, 2 | 4 << 16, 0, 0, 1 << 18, 1] {
        out.write_all(&word.to_le_bytes())?;
    }
    let mut octets = vec![0; length(way, crate::frames::LARGEST)];
    let mut written = 0;
    for context in permutation(site.contexts(), &mut Random::new(0x5eed)).into_iter().filter(|&n| wanted(n)) {
        let mut octets = &mut octets[..length(way, sizes.of(written))];
        write(octets, site, way, Stamp { sent: 0, sequence: written as u32, context });
        if way == Way::In && flood.is_some_and(|flood| written % flood == 0) {
            let length = write_i1(octets, context);
            octets = &mut octets[..length];
        }
        let size = octets.len() as u32;
        for word in [0, 0, size, size] {
            out.write_all(&word.to_le_bytes())?;
        }
        out.write_all(octets)?;
        written += 1;
    }
    out.flush()?;
    Ok(written as u64)
}
