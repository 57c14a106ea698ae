//! The workers' cores.

use std::collections::BTreeSet;

use super::tree::numbers;
use super::{Finding, Tree};
use crate::config::Site;
use crate::config::site::{Device, Idle};

const TOPIC: &str = "cores";

pub(super) fn cores(tree: &Tree, site: &Site) -> Vec<Finding> {
    let list = |name: &str| numbers(&tree.text(&format!("/sys/devices/system/cpu/{name}")).unwrap_or_default());
    let online = list("online");
    let polls = site.node.idle == Idle::Poll;
    let Some(cores) = &site.node.cores else {
        return vec![unpinned(site, &online, polls)];
    };
    let cores: Vec<u32> = cores.iter().map(|&core| core.into()).collect();
    let mut findings = Vec::new();
    let missing: Vec<u32> = cores.iter().copied().filter(|core| !online.is_empty() && !online.contains(core)).collect();
    if !missing.is_empty() {
        findings
            .push(Finding::fail(TOPIC, format!("box.cores names {}, not among {}", joined(&missing), joined(&online))));
    }
    let isolated = list("isolated");
    let shared: Vec<u32> = cores.iter().copied().filter(|core| !isolated.contains(core)).collect();
    if polls && !shared.is_empty() {
        let all = joined(&cores);
        findings.push(
            Finding::warn(TOPIC, format!("{} not isolated: workers pause while other programs run there", joined(&shared)))
                .mend(format!(
                    "sed -i 's/^GRUB_CMDLINE_LINUX=\"/&isolcpus={all} nohz_full={all} rcu_nocbs={all} /' /etc/default/grub && update-grub && reboot"
                )),
        );
    }
    findings.extend(remote(tree, site, &cores));
    if findings.is_empty() {
        findings.push(Finding::ok(TOPIC, format!("workers on {}", joined(&cores))));
    }
    findings
}

fn unpinned(site: &Site, online: &[u32], polls: bool) -> Finding {
    let workers = usize::from(site.node.workers);
    if !polls {
        return Finding::ok(TOPIC, format!("{workers} of them sleeping when idle, wherever the system puts them"));
    }
    if !online.is_empty() && workers >= online.len() {
        let text = format!("{workers} polling workers on {} cores leave none for control", online.len());
        return Finding::fail(TOPIC, format!("{text}: box.workers must be less, or box.idle = \"sleep\""));
    }
    Finding::warn(TOPIC, "polling workers may share a core with others, or each other: set box.cores")
}

/// Workers on another memory node than the network cards.
fn remote(tree: &Tree, site: &Site, cores: &[u32]) -> Vec<Finding> {
    let node_of_core = |core: u32| {
        let names = tree.names(&format!("/sys/devices/system/cpu/cpu{core}"));
        names.iter().find_map(|name| name.strip_prefix("node")?.parse::<u64>().ok())
    };
    let of_cores: BTreeSet<u64> = cores.iter().filter_map(|&core| node_of_core(core)).collect();
    let far = site.ports.iter().filter_map(|port| {
        let Device::Pci(address) = &port.device else { return None };
        // A machine with one node says -1, which is no number here.
        let node = tree.number(&format!("/sys/bus/pci/devices/{address}/numa_node"))?;
        let elsewhere = !of_cores.is_empty() && !of_cores.contains(&node);
        elsewhere.then(|| Finding::warn(TOPIC, format!("port {} is on memory node {node}, no worker is", port.name)))
    });
    far.collect()
}

fn joined(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
