//! What DPDK opens: PCI functions, and network interfaces behind AF_PACKET.

use super::{Finding, Tree, Verdict};
use crate::config::Site;
use crate::config::site::{Device, Port};

const BINDING: &str = "NIC binding";
const IOMMU: &str = "IOMMU";
const INTERFACE: &str = "interface";

/// Drivers that leave the function to a program.
const FOR_PROGRAMS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];
/// Drivers DPDK works beside.
const BESIDE: [&str; 4] = ["mlx4_core", "mlx5_core", "mana", "hv_netvsc"];

/// The interface of an AF_PACKET port.
pub(super) fn interface(port: &Port) -> Option<&str> {
    let Device::Virtual(text) = &port.device else { return None };
    let of_kernel = text.starts_with("net_af_packet") || text.starts_with("net_af_xdp");
    text.split(',').find_map(|part| part.strip_prefix("iface=")).filter(|_| of_kernel)
}

pub(super) fn functions(tree: &Tree, site: &Site) -> Vec<Finding> {
    let addresses: Vec<(&str, &str)> = site
        .ports
        .iter()
        .filter_map(|port| match &port.device {
            Device::Pci(address) => Some((port.name.as_str(), address.as_str())),
            Device::Virtual(_) => None,
        })
        .collect();
    if addresses.is_empty() {
        return vec![Finding::ok(BINDING, "no port is a PCI function")];
    }
    let mut findings = vec![iommu(tree)];
    for (port, address) in addresses {
        findings.push(binding(tree, port, address));
        findings.extend(group(tree, port, address));
    }
    findings
}

fn iommu(tree: &Tree) -> Finding {
    if !tree.names("/sys/kernel/iommu_groups").is_empty() {
        return Finding::ok(IOMMU, "on");
    }
    let unsafe_mode = tree.text("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
    if unsafe_mode.as_deref() == Some("Y") {
        return Finding::warn(IOMMU, "off, and vfio does without: a NIC can write anywhere in memory");
    }
    Finding::fail(IOMMU, "off, or the machine has none: vfio-pci opens no device")
        .mend("sed -i 's/^GRUB_CMDLINE_LINUX=\"/&intel_iommu=on iommu=pt /' /etc/default/grub && update-grub && reboot")
}

fn binding(tree: &Tree, port: &str, address: &str) -> Finding {
    let place = format!("/sys/bus/pci/devices/{address}");
    if !tree.has(&place) {
        return Finding::fail(BINDING, format!("port {port}: there is no PCI function {address}"))
            .look("lspci -Dnn | grep -i ethernet");
    }
    let bind = format!("systemctl enable --now 'pshim6-vfio@{address}.service'");
    let wanted = tree.text(&format!("{place}/driver_override")).filter(|text| !text.is_empty() && text != "(null)");
    let Some(driver) = tree.link(&format!("{place}/driver")) else {
        return Finding::fail(BINDING, format!("port {port}: {address} has no driver")).mend(bind);
    };
    if BESIDE.contains(&driver.as_str()) {
        return Finding::ok(BINDING, format!("port {port}: {address} by {driver}, which DPDK works beside"));
    }
    if !FOR_PROGRAMS.contains(&driver.as_str()) {
        let text = format!("port {port}: {address} belongs to the kernel's driver {driver}");
        return Finding::fail(BINDING, text).mend(bind);
    }
    match wanted {
        Some(other) if other != driver => Finding::warn(
            BINDING,
            format!("port {port}: {address} by {driver}, but driver_override says {other}, which gets it next time"),
        )
        .mend(bind),
        _ if driver != "vfio-pci" => Finding::warn(
            BINDING,
            format!(
                "port {port}: {address} by {driver}: a NIC can write anywhere in memory, and the daemon must be root"
            ),
        )
        .mend(bind),
        _ => Finding::ok(BINDING, format!("port {port}: {address} by {driver}")),
    }
}

/// Whether the function's IOMMU group can be opened: none of its other members may belong to the kernel.
fn group(tree: &Tree, port: &str, address: &str) -> Option<Finding> {
    let number = tree.link(&format!("/sys/bus/pci/devices/{address}/iommu_group"))?;
    let members = tree.names(&format!("/sys/kernel/iommu_groups/{number}/devices"));
    for other in members.iter().filter(|other| *other != address) {
        let place = format!("/sys/bus/pci/devices/{other}");
        // PCI bridges (class 0x0604) may keep their driver.
        let bridge = tree.text(&format!("{place}/class")).is_some_and(|class| class.starts_with("0x0604"));
        let driver = tree.link(&format!("{place}/driver")).filter(|driver| driver != "vfio-pci" && !bridge);
        if let Some(driver) = driver {
            let text = format!("port {port}: {address} shares IOMMU group {number} with {other}, which {driver} has");
            return Some(
                Finding::fail(IOMMU, text).mend(format!("echo {other} > /sys/bus/pci/devices/{other}/driver/unbind")),
            );
        }
    }
    let bound = tree.link(&format!("/sys/bus/pci/devices/{address}/driver")).as_deref() == Some("vfio-pci");
    let node = format!("/dev/vfio/{number}");
    (bound && !tree.has(&node))
        .then(|| Finding::fail(IOMMU, format!("port {port}: {node} is missing")).mend("modprobe vfio-pci"))
}

pub(super) fn interfaces(tree: &Tree, site: &Site, features: &dyn Fn(&str) -> Option<String>) -> Vec<Finding> {
    let ports = site.ports.iter().filter_map(|port| Some((port, interface(port)?)));
    let found = ports.flat_map(|(port, name)| {
        let joined = features(name).and_then(|text| joined(&text, port, name));
        // What has to be mended is not also said to be good.
        let looked = interface_of(tree, port, name);
        let good = looked.verdict == Verdict::Ok && joined.is_some();
        [(!good).then_some(looked), joined].into_iter().flatten()
    });
    found.collect()
}

/// Whether the kernel joins segments into frames larger than the link allows, before the box gets them: these are cut off or lost.
fn joined(features: &str, port: &Port, name: &str) -> Option<Finding> {
    const JOIN: [(&str, &str); 3] =
        [("generic-receive-offload", "gro"), ("large-receive-offload", "lro"), ("rx-gro-hw", "rx-gro-hw")];
    let on = |feature: &str| {
        let line =
            |line: &str| line.trim().strip_prefix(feature)?.strip_prefix(": ").map(|state| state.starts_with("on"));
        features.lines().find_map(line).unwrap_or(false)
    };
    let short: Vec<&str> = JOIN.iter().filter(|(long, _)| on(long)).map(|(_, short)| *short).collect();
    let text =
        format!("port {}: {name} joins segments ({}): frames come that no link carries", port.name, short.join(", "));
    let off: Vec<String> = short.iter().map(|short| format!("{short} off")).collect();
    (!short.is_empty()).then(|| Finding::fail(INTERFACE, text).mend(format!("ethtool -K {name} {}", off.join(" "))))
}

fn interface_of(tree: &Tree, port: &Port, name: &str) -> Finding {
    /// `IFF_UP` of a network interface.
    const UP: u64 = 1;
    let place = format!("/sys/class/net/{name}");
    if !tree.has(&place) {
        return Finding::fail(INTERFACE, format!("port {}: there is no interface {name}", port.name))
            .look("ip -br link");
    }
    let flags = tree.text(&format!("{place}/flags"));
    let flags = flags.and_then(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    if flags.is_some_and(|flags| flags & UP == 0) {
        return Finding::fail(INTERFACE, format!("port {}: {name} is down", port.name))
            .mend(format!("ip link set {name} up"));
    }
    if tree.text(&format!("{place}/carrier")).as_deref() == Some("0") {
        return Finding::warn(INTERFACE, format!("port {}: {name} has no carrier: look at the cable", port.name));
    }
    match tree.number(&format!("{place}/mtu")) {
        Some(mtu) if mtu < u64::from(port.mtu) => {
            Finding::fail(INTERFACE, format!("port {}: {name} has MTU {mtu}, port.mtu is {}", port.name, port.mtu))
                .mend(format!("ip link set {name} mtu {}", port.mtu))
        }
        Some(mtu) => Finding::ok(INTERFACE, format!("port {}: {name} is up, MTU {mtu}", port.name)),
        None => Finding::ok(INTERFACE, format!("port {}: {name} is up", port.name)),
    }
}
