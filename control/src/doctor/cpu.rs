//! The workers' cores.

use std::collections::BTreeSet;
use std::path::Path;

use super::tree::numbers;
use super::{Finding, RESTART, Tree, set};
use crate::config::Site;
use crate::config::site::{Device, Idle};

const TOPIC: &str = "cores";

pub(super) fn cores(tree: &Tree, config: &Path, site: &Site) -> Vec<Finding> {
    let list = |name: &str| numbers(&tree.text(&format!("/sys/devices/system/cpu/{name}")).unwrap_or_default());
    let online = list("online");
    let polls = site.node.idle == Idle::Poll;
    let Some(cores) = &site.node.cores else {
        return vec![unpinned(config, site, &online, polls)];
    };
    let cores: Vec<u32> = cores.iter().map(|&core| core.into()).collect();
    let mut findings = Vec::new();
    let missing: Vec<u32> = cores.iter().copied().filter(|core| !online.is_empty() && !online.contains(core)).collect();
    if !missing.is_empty() {
        let finding =
            Finding::fail(TOPIC, format!("box.cores names {}, not among {}", joined(&missing), joined(&online)));
        findings.push(pinned(finding, config, site, &online));
    }
    let isolated = list("isolated");
    let shared: Vec<u32> =
        cores.iter().copied().filter(|core| !missing.contains(core) && !isolated.contains(core)).collect();
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

fn unpinned(config: &Path, site: &Site, online: &[u32], polls: bool) -> Finding {
    let workers = usize::from(site.node.workers);
    if !polls {
        return Finding::ok(TOPIC, format!("{workers} of them sleeping when idle, wherever the system puts them"));
    }
    if !online.is_empty() && workers >= online.len() {
        let text = format!("{workers} polling workers on {} cores leave none for control", online.len());
        return Finding::fail(TOPIC, text).mend(set(config, "box", "idle", "\"sleep\"", RESTART));
    }
    pinned(Finding::warn(TOPIC, "polling workers may share a core with others, or each other"), config, site, online)
}

/// With the command that gives each worker one of the last cores: the first does most of what else there is.
fn pinned(finding: Finding, config: &Path, site: &Site, online: &[u32]) -> Finding {
    match online.len().checked_sub(usize::from(site.node.workers)) {
        None => finding,
        Some(first) => {
            let cores = joined(&online[first..]).replace(',', ", ");
            finding.mend(set(config, "box", "cores", &format!("[{cores}]"), RESTART))
        }
    }
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
