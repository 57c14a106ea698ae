//! How a device spreads frames over its receive queues (receive side scaling).
//!
//! Key and table are ours and not the driver's: a key that is published in a driver's source lets anybody choose addresses
//! that all end in one queue, and a table we have not written may leave queues out.

use crate::port::Device;
use crate::sys;

/// Octets of the longest key of a device.
pub const RSS_KEY_MAX: usize = 64;
/// Octets of a key when the device does not say: the Toeplitz hash of an IPv6 address pair needs as many (Microsoft's
/// definition of RSS, which NICs follow).
const KEY_USUAL: u8 = 40;

/// What a device with several receive queues spreads frames by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rss {
    /// The IPv6 addresses.
    Addresses,
    /// The IPv6 addresses, and the ports of TCP, UDP and SCTP.
    AddressesAndPorts,
}

/// What a device does of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Frames are spread by a hash.
    pub hash: bool,
    /// With the key that was given.
    pub key: bool,
    /// Over a table that was written, of so many places; zero where the driver keeps its own.
    pub table: u16,
}

/// The hash and the key to ask a device for.
pub(crate) struct Wanted {
    hash: u64,
    key: Option<[u8; RSS_KEY_MAX]>,
    key_len: u8,
}

impl Wanted {
    /// What was wanted, as far as the device offers it.
    pub(crate) fn of(
        info: &sys::rte_eth_dev_info,
        queues: u16,
        rss: Option<Rss>,
        key: Option<[u8; RSS_KEY_MAX]>,
    ) -> Wanted {
        let hash = match rss {
            Some(_) if queues == 1 => 0,
            None => 0,
            Some(Rss::Addresses) => sys::PSHIM6_RSS_ADDRESSES,
            Some(Rss::AddressesAndPorts) => sys::PSHIM6_RSS_ADDRESSES | sys::PSHIM6_RSS_PORTS,
        };
        let key_len = if info.hash_key_size == 0 { KEY_USUAL } else { info.hash_key_size };
        let key = key.filter(|key| usize::from(key_len) <= key.len());
        Wanted { hash: hash & info.flow_type_rss_offloads, key, key_len }
    }

    /// No hash.
    pub(crate) fn nothing() -> Wanted {
        Wanted { hash: 0, key: None, key_len: 0 }
    }

    pub(crate) fn hashes(&self) -> bool {
        self.hash != 0
    }

    /// Writes it into a port's settings, which point at the key: they must not outlive `self`.
    pub(crate) fn write(&mut self, settings: &mut sys::rte_eth_conf) {
        if self.hash == 0 {
            return;
        }
        settings.rxmode.mq_mode = sys::rte_eth_rx_mq_mode_RTE_ETH_MQ_RX_RSS;
        let conf = &mut settings.rx_adv_conf.rss_conf;
        conf.rss_hf = self.hash;
        if let Some(key) = &mut self.key {
            (conf.rss_key, conf.rss_key_len) = (key.as_mut_ptr(), self.key_len);
        }
    }

    /// What a started device does of it; its table is written here, which takes queues that are set up.
    pub(crate) fn settle(&self, device: &Device, info: &sys::rte_eth_dev_info, queues: u16) -> Spread {
        if self.hash == 0 {
            return Spread::default();
        }
        let key = self.key.is_some_and(|key| {
            let wanted = &key[..usize::from(self.key_len)];
            let is_there = || key_in_force(device, self.key_len).is_some_and(|there| there == wanted);
            // Some drivers take the key with the settings, others only in a step of its own.
            is_there() || (self.write_key(device, key) && is_there())
        });
        let table = if write_table(device, info.reta_size, queues) { info.reta_size } else { 0 };
        Spread { hash: true, key, table }
    }

    fn write_key(&self, device: &Device, mut key: [u8; RSS_KEY_MAX]) -> bool {
        let mut conf =
            sys::rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: self.key_len, rss_hf: self.hash };
        // SAFETY: the port is started and ours; the key has as many octets as it says, and is only read.
        unsafe { sys::rte_eth_dev_rss_hash_update(device.id(), &mut conf) == 0 }
    }
}

/// The key a device hashes with; none if it does not tell.
fn key_in_force(device: &Device, octets: u8) -> Option<Vec<u8>> {
    let mut key = vec![0; RSS_KEY_MAX];
    let mut conf = sys::rte_eth_rss_conf { rss_key: key.as_mut_ptr(), rss_key_len: octets, rss_hf: 0 };
    // SAFETY: the port is started and ours; the key has room for as many octets as a key of this device has, which is at
    // most as many as were given.
    let answer = unsafe { sys::rte_eth_dev_rss_hash_conf_get(device.id(), &mut conf) };
    key.truncate(usize::from(octets));
    (answer == 0).then_some(key)
}

/// Groups of table entries, as DPDK wants them: every queue in turn.
fn table(size: u16, queues: u16) -> Vec<sys::rte_eth_rss_reta_entry64> {
    let group = sys::RTE_ETH_RETA_GROUP_SIZE as u16;
    let mut groups = vec![sys::rte_eth_rss_reta_entry64::default(); usize::from(size.div_ceil(group))];
    for place in 0..size {
        let entry = &mut groups[usize::from(place / group)];
        entry.mask |= 1 << (place % group);
        entry.reta[usize::from(place % group)] = place % queues.max(1);
    }
    groups
}

fn write_table(device: &Device, size: u16, queues: u16) -> bool {
    let mut groups = table(size, queues);
    // SAFETY: the port is started and ours, its queues are set up, and there are groups for `size` entries.
    size > 0 && unsafe { sys::rte_eth_dev_rss_reta_update(device.id(), groups.as_mut_ptr(), size) } == 0
}

/// Which queue each place of a device's table leads to; none if it does not tell.
pub(crate) fn read_table(device: &Device, size: u16) -> Option<Vec<u16>> {
    let mut groups = table(size, 1);
    // SAFETY: as above; the groups are ours to be written.
    let answer = unsafe { sys::rte_eth_dev_rss_reta_query(device.id(), groups.as_mut_ptr(), size) };
    let places = groups.iter().flat_map(|group| group.reta).take(usize::from(size));
    (answer == 0 && size > 0).then(|| places.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_leads_to_each_queue_in_turn_whatever_its_size() {
        for (size, queues) in [(128, 3), (64, 4), (100, 7), (512, 1), (2, 5)] {
            let groups = table(size, queues);
            let places: Vec<(usize, u16)> = groups
                .iter()
                .enumerate()
                .flat_map(|(number, group)| (0..64).map(move |at| (number, at, group)))
                .filter(|(_, at, group)| group.mask >> at & 1 == 1)
                .map(|(number, at, group)| (number * 64 + at, group.reta[at]))
                .collect();
            let expected: Vec<(usize, u16)> = (0..size).map(|place| (usize::from(place), place % queues)).collect();
            assert_eq!(places, expected);
        }
    }
}
