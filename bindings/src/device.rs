//! What a device is called: a PCI address, or a software device with its arguments.

use std::fmt;
use std::str::FromStr;

use crate::error::DeviceSpecError;

/// A device to attach, as an operator writes it.
///
/// `0000:03:00.0` (the domain may be left out) or `0000:03:00.0,args` is a NIC; anything else is a virtual device of
/// DPDK with its arguments: `net_af_packet0,iface=veth0`, `net_memif0,role=client,socket=/run/m.sock`,
/// `net_tap0,iface=site0`, `net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap`, `net_ring0`, `net_null0`.
///
/// With `net_tap`, the kernel sends this process a signal for each packet. A system call that waits with a timeout may
/// then end early in any thread (`ErrorKind::Interrupted`): try again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceSpec {
    name: String,
    arguments: Option<String>,
    pci: bool,
}

impl DeviceSpec {
    /// What [`crate::Port::configure`] looks it up by: the PCI address with its domain, or the virtual device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A NIC on the bus, as opposed to a device made of software.
    pub fn is_pci(&self) -> bool {
        self.pci
    }
}

impl FromStr for DeviceSpec {
    type Err = DeviceSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| Err(DeviceSpecError { text: text.to_owned(), reason });
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong("a space or control character in it");
        }
        let (name, arguments) = match text.split_once(',') {
            Some((name, arguments)) => (name, Some(arguments.to_owned())),
            None => (text, None),
        };
        if let Some(name) = pci_address(name) {
            return Ok(DeviceSpec { name, arguments, pci: true });
        }
        if name.is_empty() {
            return wrong("it has no name");
        }
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return wrong("neither a PCI address nor a driver's name");
        }
        // A colon would make DPDK read the front as the name of a bus.
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')) {
            return wrong("a character no driver's name has");
        }
        // RTE_DEV_NAME_MAX_LEN, of which the port keeps the NUL.
        if name.len() >= 64 {
            return wrong("its name is longer than 63 characters");
        }
        Ok(DeviceSpec { name: name.to_owned(), arguments, pci: false })
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.arguments {
            Some(arguments) => write!(f, ",{arguments}"),
            None => Ok(()),
        }
    }
}

/// `dddd:bb:dd.f` from itself or from `bb:dd.f`; none when it is not one.
fn pci_address(text: &str) -> Option<String> {
    let (front, function) = text.split_once('.')?;
    let mut parts: Vec<&str> = front.split(':').collect();
    if parts.len() == 2 {
        parts.insert(0, "0000");
    }
    let [domain, bus, device] = parts[..] else { return None };
    let hex = |part: &str, digits| part.len() == digits && part.chars().all(|c| c.is_ascii_hexdigit());
    let function_ok = matches!(function.as_bytes(), [b'0'..=b'7']);
    (hex(domain, 4) && hex(bus, 2) && hex(device, 2) && function_ok)
        .then(|| format!("{domain}:{bus}:{device}.{function}").to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_a_nic_and_gains_its_domain() {
        let spec: DeviceSpec = "0000:AF:00.1,rx_vec_en=1".parse().unwrap();
        assert!(spec.is_pci());
        assert_eq!((spec.name(), spec.to_string().as_str()), ("0000:af:00.1", "0000:af:00.1,rx_vec_en=1"));
        let short: DeviceSpec = "03:00.0".parse().unwrap();
        assert!(short.is_pci());
        assert_eq!(short.name(), "0000:03:00.0");
    }

    #[test]
    fn anything_else_is_a_virtual_device_whose_name_ends_at_the_comma() {
        let spec: DeviceSpec = "net_af_packet0,iface=veth0,qpairs=2".parse().unwrap();
        assert!(!spec.is_pci());
        assert_eq!(spec.name(), "net_af_packet0");
        assert_eq!(spec.to_string(), "net_af_packet0,iface=veth0,qpairs=2");
        assert_eq!("net_null0".parse::<DeviceSpec>().unwrap().to_string(), "net_null0");
    }

    #[test]
    fn what_neither_can_be_is_refused_with_the_reason() {
        let long = "n".repeat(64);
        for text in ["", ",iface=x", "net null0", "net_null0\0", "03:00.8", "pci:03:00.0", "3", long.as_str()] {
            assert!(text.parse::<DeviceSpec>().is_err(), "{text:?} was taken");
        }
    }
}
