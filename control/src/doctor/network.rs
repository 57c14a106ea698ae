//! What the kernel does with the same links, how large packets may be, and the clock.

use std::path::Path;

use super::devices::interface;
use super::{Finding, RELOAD, Tree, set};
use crate::config::Site;

const MTU: &str = "MTU";
const KERNEL: &str = "kernel";
const CLOCK: &str = "clock";

/// Where the doctor's settings for ports are kept.
const SYSCTL: &str = "/etc/sysctl.d/61-pshim6-ports.conf";
/// Octets of the payload header (RFC 5533 §5.2).
const PAYLOAD_HEADER: u16 = 8;
/// The least MTU of IPv6 with room for the payload header.
const ROOMY: u16 = 1280 + PAYLOAD_HEADER;

pub(super) fn mtus(config: &Path, site: &Site) -> Vec<Finding> {
    let lan = site.ports.get(site.lan_port).map_or(0, |port| port.mtu);
    let mut findings = Vec::new();
    for provider in &site.providers {
        let Some(port) = site.ports.get(provider.port) else { continue };
        let text = format!("provider {}: MTU {}", provider.name, port.mtu);
        findings.push(if port.mtu < ROOMY {
            Finding::warn(MTU, format!("{text}: hosts' packets of 1280 octets are cut into fragments"))
        } else if port.mtu >= lan.saturating_add(PAYLOAD_HEADER) {
            Finding::ok(MTU, format!("{text} has room for the hosts' {lan} and the payload header"))
        } else if site.mss_clamp {
            Finding::ok(MTU, format!("{text}, hosts {lan}: site.mss_clamp keeps TCP's segments small enough"))
        } else if port.mtu >= lan {
            Finding::ok(MTU, format!("{text}, hosts {lan}: hosts learn by Packet Too Big (or set site.mss_clamp)"))
        } else {
            Finding::warn(MTU, format!("{text}, hosts {lan}: every large packet is answered first")).mend(set(
                config,
                "site",
                "mss_clamp",
                "true",
                RELOAD,
            ))
        });
    }
    findings
}

/// Whether the kernel answers or forwards what is the box's: then packets get past it untranslated.
pub(super) fn kernel(tree: &Tree, site: &Site) -> Vec<Finding> {
    let names: Vec<&str> = site.ports.iter().filter_map(interface).collect();
    if names.is_empty() {
        return vec![Finding::ok(KERNEL, "no port is an interface of the kernel's")];
    }
    let flag = |name: &str, what: &str| tree.number(&format!("/proc/sys/net/ipv6/conf/{name}/{what}")) == Some(1);
    let open: Vec<&str> =
        names.iter().copied().filter(|name| !flag(name, "disable_ipv6") && has_ipv6(tree, name)).collect();
    let mut findings = Vec::new();
    for name in &open {
        // With a slash, names of interfaces may have dots. The file is read at each start, when the interface appears.
        let line = format!("net/ipv6/conf/{name}/disable_ipv6 = 1");
        let command = format!("echo '{line}' >> {SYSCTL} && sysctl -q -p {SYSCTL}");
        let forwards = open.len() > 1 && (flag(name, "forwarding") || flag("all", "forwarding"));
        findings.push(if forwards {
            let text = format!("forwards IPv6 on {name}: packets go past the box untranslated");
            Finding::fail(KERNEL, text).mend(command)
        } else {
            Finding::warn(KERNEL, format!("speaks IPv6 on {name} and answers what is for the box")).mend(command)
        });
    }
    findings.extend(routes(tree, &names));
    if findings.is_empty() {
        findings.push(Finding::ok(KERNEL, format!("keeps out of IPv6 on {}", names.join(", "))));
    }
    findings
}

fn has_ipv6(tree: &Tree, name: &str) -> bool {
    tree.has(&format!("/proc/sys/net/ipv6/conf/{name}"))
}

/// Routes of the kernel's over the ports, other than to the link itself and to groups.
fn routes(tree: &Tree, names: &[&str]) -> Vec<Finding> {
    let text = tree.text("/proc/net/ipv6_route").unwrap_or_default();
    let route = |line: &str| {
        // Destination, its length, source, its length, next hop, metric, references, uses, flags, interface.
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (&destination, &length, &name) = (fields.first()?, fields.get(1)?, fields.get(9)?);
        let number = u128::from_str_radix(destination, 16).ok()?;
        let address = std::net::Ipv6Addr::from(number);
        let length = u8::from_str_radix(length, 16).ok()?;
        let foreign = !address.is_unicast_link_local() && !address.is_multicast() && names.contains(&name);
        let text = format!("has a route to {address}/{length} over {name}, which is the box's");
        let command = format!("ip -6 route del {address}/{length} dev {name}");
        foreign.then(|| Finding::warn(KERNEL, text).mend(command))
    };
    text.lines().filter_map(route).collect()
}

pub(super) fn clock(tree: &Tree, site: &Site) -> Finding {
    // What there is when the clock is kept right; of chrony and ntpd only that they run can be seen from outside.
    if tree.has("/run/systemd/timesync/synchronized") {
        return Finding::ok(CLOCK, "synchronised by systemd-timesyncd");
    }
    for (place, program) in [("/run/chrony/chronyd.pid", "chronyd"), ("/run/ntpd.pid", "ntpd")] {
        if tree.has(place) {
            return Finding::ok(CLOCK, format!("{program} runs"));
        }
    }
    let text = match site.publish {
        Some(_) => "nothing keeps it right: name servers refuse signatures that are five minutes off",
        None => "nothing keeps it right: log lines and billing periods are only as good as it",
    };
    Finding::warn(CLOCK, text).mend("apt install systemd-timesyncd && timedatectl set-ntp true")
}
