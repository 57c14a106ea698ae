//! Ports: a device configured, with one receive and one transmit queue for each worker.

use std::cell::Cell;
use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::device::DeviceSpec;
use crate::eal::{Eal, claimed};
use crate::error::{Errno, PortError};
use crate::events::Events;
use crate::pool::Pool;
use crate::queue::{Gate, QueuePair};
use crate::spread::{self, RSS_KEY_MAX, Rss, Spread, Wanted};
use crate::sys;

/// Octets a frame has beyond its MTU: the Ethernet header and one VLAN tag. (Buffers hold no checksum.)
const FRAME_OVERHEAD: u32 = sys::RTE_ETHER_HDR_LEN + 4;

/// How to set a port up.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Receive queues and transmit queues: one of each per worker.
    pub queues: u16,
    /// Descriptors per receive queue; moved to what the device can have.
    pub rx_desc: u16,
    /// Descriptors per transmit queue; likewise.
    pub tx_desc: u16,
    /// Octets of IPv6 packet in a frame.
    pub mtu: u16,
    /// How to spread frames over the queues, where the device offers it.
    pub rss: Option<Rss>,
    /// The key of the hash, as many octets of it as the device's has; without one the driver's own.
    pub rss_key: Option<[u8; RSS_KEY_MAX]>,
    /// Receive frames for other stations too. Multicast is always received, for neighbour discovery needs it.
    pub promiscuous: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        PortConfig { queues: 1, rx_desc: 1024, tx_desc: 1024, mtu: 1500, rss: None, rss_key: None, promiscuous: true }
    }
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a device counted since it started. A software device leaves at zero what it does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
    /// Octets received.
    pub rx_octets: u64,
    /// Octets sent.
    pub tx_octets: u64,
    /// Frames lost because the receive queue was full.
    pub rx_missed: u64,
    /// Broken frames received.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Times there was no buffer to receive into.
    pub rx_no_buffer: u64,
    /// Frames spread over several buffers, which were dropped (see [`QueuePair::receive`]).
    pub rx_chained: u64,
}

/// What a device said by itself since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortEvents {
    /// Times its link changed.
    pub link_changes: u64,
    /// It has to be set up anew ([`Port::reset`]).
    pub reset_wanted: bool,
    /// It is gone.
    pub removed: bool,
}

/// How long workers may take to leave a device's queues alone.
const PATIENCE: Duration = Duration::from_secs(1);

/// A device in use: what can be asked about it as a whole. It stops and closes when this and all its queues are gone,
/// and can then be attached anew.
#[derive(Debug)]
pub struct Port {
    device: Arc<Device>,
    mac: Mac,
    mtu: u16,
    spread: Cell<Spread>,
    max_queues: u16,
    /// How it was set up, to do so again.
    config: PortConfig,
    pool: Pool,
    /// The kernel's number of the interface below; zero when there is none.
    interface: u32,
    /// DPDK wants questions about one port asked by one thread at a time.
    _one_thread: PhantomData<Cell<()>>,
}

impl Port {
    /// Sets up the device called `name` (see [`DeviceSpec::name`]), whose received packets come from `pool`, and
    /// starts it.
    pub fn configure(
        _started: &Eal,
        name: &str,
        pool: &Pool,
        config: &PortConfig,
    ) -> Result<(Port, Vec<QueuePair>), PortError> {
        let id = find(name)?;
        let info = info(id, name)?;
        check(name, &info, pool, config)?;
        let device = Arc::new(Device::claim(id, name, config.queues)?);
        device.listen()?;
        let (mtu, spread) = device.bring_up(&info, pool, config)?;
        let queues = (0..config.queues).map(|queue| QueuePair::new(&device, id, queue)).collect();
        let mac = device.mac()?;
        let max_queues = info.max_rx_queues.min(info.max_tx_queues);
        let port = Port {
            device,
            mac,
            mtu,
            spread: Cell::new(spread),
            max_queues,
            config: config.clone(),
            pool: pool.clone(),
            interface: info.if_index,
            _one_thread: PhantomData,
        };
        Ok((port, queues))
    }

    /// Queue pairs the device called `name` could have, before it is set up.
    pub fn max_queues_of(_started: &Eal, name: &str) -> Result<u16, PortError> {
        let info = info(find(name)?, name)?;
        Ok(info.max_rx_queues.min(info.max_tx_queues))
    }

    /// The memory node of the device called `name`, before it is set up; none if it has none.
    pub fn socket_of(_started: &Eal, name: &str) -> Result<Option<u32>, PortError> {
        Ok(socket(find(name)?))
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        &self.device.name
    }

    /// Its hardware address.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The MTU in force: what was asked for, also where the device has no notion of one.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Queue pairs in use.
    pub fn queues(&self) -> u16 {
        self.config.queues
    }

    /// Queue pairs the device could have.
    pub fn max_queues(&self) -> u16 {
        self.max_queues
    }

    /// How the device spreads frames over its queues by a hash of ours. A device may spread them by other means.
    pub fn spread(&self) -> Spread {
        self.spread.get()
    }

    /// Which queue each place of the table leads to that hashes are looked up in; none if the device does not tell.
    pub fn spread_table(&self) -> Option<Vec<u16>> {
        spread::read_table(&self.device, self.spread.get().table)
    }

    /// The memory node of the device; none if it has none or there is only one.
    pub fn socket(&self) -> Option<u32> {
        self.device.socket()
    }

    /// The offloads that are on for reception and for sending, as DPDK numbers them. None is ever asked for.
    pub fn offloads(&self) -> Result<(u64, u64), PortError> {
        let mut conf = sys::rte_eth_conf::default();
        // SAFETY: the port is open, `conf` is ours to be written.
        let answer = unsafe { sys::rte_eth_dev_conf_get(self.device.id, &mut conf) };
        self.device.step("ask how it was configured", answer)?;
        Ok((conf.rxmode.offloads, conf.txmode.offloads))
    }

    /// What the device said by itself.
    pub fn events(&self) -> PortEvents {
        let events = &self.device.events;
        PortEvents {
            link_changes: events.link_changes.load(Ordering::Relaxed),
            reset_wanted: events.reset_wanted.load(Ordering::Relaxed),
            removed: events.removed.load(Ordering::Relaxed),
        }
    }

    /// Sets the device up anew, as it asks for when something happened to the hardware below it, and starts it again.
    /// Threads that come to its queues meanwhile find nothing and send nothing; each has to come by once, or its queue pair
    /// be dropped. After an error the device stands still, and this may be tried again.
    pub fn reset(&self) -> Result<(), PortError> {
        let device = &self.device;
        if !device.gate.shut(PATIENCE) {
            let (name, step) = (device.name.clone(), "keep threads out of its queues");
            return Err(PortError::Step { name, step, errno: Errno::EBUSY });
        }
        // Cleared first: what the device says from here on counts.
        device.events.reset_wanted.store(false, Ordering::Relaxed);
        let done = device.take_down().and_then(|()| {
            let info = info(device.id, &device.name)?;
            device.bring_up(&info, &self.pool, &self.config)
        });
        match done {
            Ok((_, spread)) => {
                self.spread.set(spread);
                device.gate.open();
                Ok(())
            }
            Err(error) => {
                device.events.reset_wanted.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    /// Whether the link is up. False when the device cannot tell. Asks the kernel, so not for packets.
    ///
    /// A device on top of a kernel interface is up when that is, too: DPDK's AF_PACKET driver does not look.
    pub fn link_up(&self) -> bool {
        let mut link = sys::rte_eth_link::default();
        // SAFETY: the port is open, `link` is ours to be written.
        let answer = unsafe { sys::rte_eth_link_get_nowait(self.device.id, &mut link) };
        answer >= 0 && link.link_status() == 1 && self.interface_up() != Some(false)
    }

    /// Whether the kernel interface below is up; none when there is none or it cannot be asked.
    fn interface_up(&self) -> Option<bool> {
        if self.interface == 0 {
            return None;
        }
        // SAFETY: takes a number and gives a number; a socket of its own is opened and closed inside.
        match unsafe { sys::pshim6_interface_up(self.interface) } {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// What the device counted.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        let mut stats = sys::rte_eth_stats::default();
        // SAFETY: the port is open, `stats` is ours to be written.
        let answer = unsafe { sys::rte_eth_stats_get(self.device.id, &mut stats) };
        self.device.step("read its counters", answer)?;
        Ok(PortStats {
            rx_frames: stats.ipackets,
            tx_frames: stats.opackets,
            rx_octets: stats.ibytes,
            tx_octets: stats.obytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
            rx_no_buffer: stats.rx_nombuf,
            rx_chained: self.device.chained.load(Ordering::Relaxed),
        })
    }
}

/// A claimed device; stopped, closed and detached when the last holder is gone.
#[derive(Debug)]
pub(crate) struct Device {
    /// First, since workers look at it each time.
    gate: Gate,
    id: u16,
    name: String,
    chained: AtomicU64,
    events: Box<Events>,
}

impl Device {
    fn claim(id: u16, name: &str, queues: u16) -> Result<Self, PortError> {
        if !claimed().insert(id) {
            return Err(PortError::Busy { name: name.to_owned() });
        }
        let (gate, name, events) = (Gate::new(queues), name.to_owned(), Box::default());
        Ok(Device { gate, id, name, chained: AtomicU64::new(0), events })
    }

    #[inline]
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    pub(crate) fn count_chained(&self, frames: u64) {
        self.chained.fetch_add(frames, Ordering::Relaxed);
    }

    fn listen(&self) -> Result<(), PortError> {
        let listening = self.events.listen(self.id);
        listening.map_err(|errno| PortError::Step { name: self.name.clone(), step: "listen to it", errno })
    }

    /// Configures it and starts it. What is in force: its MTU, and how it spreads frames.
    fn bring_up(
        &self,
        info: &sys::rte_eth_dev_info,
        pool: &Pool,
        config: &PortConfig,
    ) -> Result<(u16, Spread), PortError> {
        let mut wanted = Wanted::of(info, config.queues, config.rss, config.rss_key);
        // What a driver offers it may refuse all the same, and several queues are of use without a hash of ours.
        if wanted.hashes() && self.configure(info, config, &mut wanted).is_err() {
            wanted = Wanted::nothing();
        }
        if !wanted.hashes() {
            self.configure(info, config, &mut wanted)?;
        }
        self.queues(info, pool, config)?;
        let mtu = self.mtu(info, config.mtu)?;
        self.start(config.promiscuous)?;
        Ok((mtu, wanted.settle(self, info, config.queues)))
    }

    /// Stops it, by its own means where the hardware has to be reset.
    fn take_down(&self) -> Result<(), PortError> {
        // SAFETY: the port is ours, and the gate keeps everybody out of its queues.
        let answer = unsafe { sys::rte_eth_dev_reset(self.id) };
        if Errno::check(answer) != Err(Errno::ENOTSUP) {
            return self.step("reset it", answer);
        }
        // SAFETY: as above.
        let answer = unsafe { sys::rte_eth_dev_stop(self.id) };
        self.step("stop it", answer)
    }

    fn socket(&self) -> Option<u32> {
        socket(self.id)
    }

    fn step(&self, step: &'static str, answer: i32) -> Result<(), PortError> {
        Errno::check(answer).map_err(|errno| PortError::Step { name: self.name.clone(), step, errno })
    }

    /// For what a software device need not offer.
    fn optional_step(&self, step: &'static str, answer: i32) -> Result<(), PortError> {
        if Errno::check(answer) == Err(Errno::ENOTSUP) { Ok(()) } else { self.step(step, answer) }
    }

    fn configure(
        &self,
        info: &sys::rte_eth_dev_info,
        config: &PortConfig,
        wanted: &mut Wanted,
    ) -> Result<(), PortError> {
        // All zero is DPDK's default: no offload in either direction. Nothing here may lean on what a NIC says of checksums:
        // they cover identifiers, and the addresses a NIC sees are locators.
        let mut settings = sys::rte_eth_conf::default();
        wanted.write(&mut settings);
        // SAFETY: DPDK gives a pointer to flags that live as long as the device, or none.
        let flags = unsafe { info.dev_flags.as_ref() }.copied().unwrap_or_default();
        settings.intr_conf.set_lsc(u32::from(flags & sys::PSHIM6_DEVICE_TELLS_LINK != 0));
        // No MTU either: the driver's default always passes, and the one asked for is set in a step of its own.
        // SAFETY: the port exists, is ours and not started; `settings` is only read.
        let answer = unsafe { sys::rte_eth_dev_configure(self.id, config.queues, config.queues, &settings) };
        self.step("configure it", answer)
    }

    fn queues(&self, info: &sys::rte_eth_dev_info, pool: &Pool, config: &PortConfig) -> Result<(), PortError> {
        let (mut rx_desc, mut tx_desc) = (config.rx_desc, config.tx_desc);
        // SAFETY: the port is configured and ours; both numbers are ours to be written.
        let answer = unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx_desc, &mut tx_desc) };
        self.step("fit its descriptors", answer)?;
        // -1, any, as DPDK knows it.
        let socket = self.socket().unwrap_or(u32::MAX);
        let (rx_settings, tx_settings) = (info.default_rxconf, info.default_txconf);
        for queue in 0..config.queues {
            // SAFETY: the port is configured for these queues and not started; the pool lives as long as the process;
            // the settings are only read.
            let answer =
                unsafe { sys::rte_eth_rx_queue_setup(self.id, queue, rx_desc, socket, &rx_settings, pool.as_ptr()) };
            self.step("set up a receive queue", answer)?;
            // SAFETY: as above.
            let answer = unsafe { sys::rte_eth_tx_queue_setup(self.id, queue, tx_desc, socket, &tx_settings) };
            self.step("set up a transmit queue", answer)?;
        }
        Ok(())
    }

    /// Sets the MTU, and says what is in force. A device that cannot set one (memif) carries what fits its buffers.
    fn mtu(&self, info: &sys::rte_eth_dev_info, wanted: u16) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: the port is configured and ours; `mtu` is ours to be written.
        let answer = unsafe { sys::rte_eth_dev_get_mtu(self.id, &mut mtu) };
        self.step("read its MTU", answer)?;
        if mtu != wanted {
            // SAFETY: the port is configured, ours and not started.
            let answer = unsafe { sys::rte_eth_dev_set_mtu(self.id, wanted) };
            if Errno::check(answer) == Err(Errno::EINVAL) {
                // The driver counts the checksum among a frame's octets.
                let frame = info.max_rx_pktlen.saturating_sub(sys::RTE_ETHER_HDR_LEN + sys::RTE_ETHER_CRC_LEN);
                let most = frame.min(u32::from(info.max_mtu));
                return Err(PortError::Mtu { name: self.name.clone(), asked: wanted, most });
            }
            self.optional_step("set its MTU", answer)?;
        }
        Ok(wanted)
    }

    fn start(&self, promiscuous: bool) -> Result<(), PortError> {
        // SAFETY: the port is configured with all its queues, and ours.
        let answer = unsafe { sys::rte_eth_dev_start(self.id) };
        self.step("start it", answer)?;
        if promiscuous {
            // SAFETY: the port is started and ours.
            let answer = unsafe { sys::rte_eth_promiscuous_enable(self.id) };
            self.optional_step("receive frames for other stations", answer)?;
        }
        // SAFETY: as above.
        let answer = unsafe { sys::rte_eth_allmulticast_enable(self.id) };
        self.optional_step("receive multicast", answer)
    }

    fn mac(&self) -> Result<Mac, PortError> {
        let mut mac = sys::rte_ether_addr::default();
        // SAFETY: the port exists; `mac` is ours to be written.
        let answer = unsafe { sys::rte_eth_macaddr_get(self.id, &mut mac) };
        self.step("read its hardware address", answer)?;
        Ok(Mac(mac.addr_bytes))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.events.ignore(self.id);
        let mut claimed = claimed();
        let device = info(self.id, &self.name).map(|info| info.device);
        // Nothing can be done about a device that does not stop, and it is closed all the same.
        // SAFETY: the port is ours, and no queue of it is left: each holds this device.
        unsafe {
            sys::rte_eth_dev_stop(self.id);
            sys::rte_eth_dev_close(self.id);
        }
        // A virtual device can then be attached anew under its name. A NIC stays on the bus.
        let virtual_device = self.name.parse::<DeviceSpec>().is_ok_and(|spec| !spec.is_pci());
        if let (true, Ok(device)) = (virtual_device, device) {
            // SAFETY: the device was probed and not removed since: it is ours, and the lock keeps others out.
            unsafe { sys::rte_dev_remove(device) };
        }
        claimed.remove(&self.id);
    }
}

/// The port number of a device.
pub(crate) fn find(name: &str) -> Result<u16, PortError> {
    let missing = || PortError::Missing { name: name.to_owned() };
    let c_name = CString::new(name).map_err(|_| missing())?;
    let mut id = 0;
    // SAFETY: a NUL-terminated string that is only read, and a number of ours to be written.
    let answer = unsafe { sys::rte_eth_dev_get_port_by_name(c_name.as_ptr(), &mut id) };
    Errno::check(answer).map_err(|_| missing())?;
    Ok(id)
}

fn socket(id: u16) -> Option<u32> {
    // SAFETY: DPDK checks the number.
    u32::try_from(unsafe { sys::rte_eth_dev_socket_id(id) }).ok()
}

fn info(id: u16, name: &str) -> Result<sys::rte_eth_dev_info, PortError> {
    let mut info = sys::rte_eth_dev_info::default();
    // SAFETY: DPDK checks the number; `info` is ours to be written.
    let answer = unsafe { sys::rte_eth_dev_info_get(id, &mut info) };
    Errno::check(answer).map_err(|errno| PortError::Step {
        name: name.to_owned(),
        step: "ask what it can do",
        errno,
    })?;
    Ok(info)
}

/// What can be told to be wrong before the device is touched.
fn check(name: &str, info: &sys::rte_eth_dev_info, pool: &Pool, config: &PortConfig) -> Result<(), PortError> {
    let most = info.max_rx_queues.min(info.max_tx_queues);
    if config.queues == 0 || config.queues > most {
        return Err(PortError::Queues { name: name.to_owned(), asked: config.queues, most });
    }
    let needed = u32::from(config.mtu) + FRAME_OVERHEAD;
    if needed > u32::from(pool.data_room()) {
        let (mtu, room) = (config.mtu, pool.data_room());
        return Err(PortError::Room { name: name.to_owned(), mtu, needed, room });
    }
    // Drivers fill their queues from the pool, and a pool they emptied looks like a link on which nothing arrives.
    let (needed, available) = (u32::from(config.queues) * u32::from(config.rx_desc), pool.available());
    if needed >= available {
        return Err(PortError::Buffers { name: name.to_owned(), needed, available });
    }
    Ok(())
}
