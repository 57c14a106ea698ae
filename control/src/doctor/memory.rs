//! Hugepages and ordinary memory.

use super::{Finding, Patient, RESTART, Tree, set};
use crate::config::Site;
use crate::config::site::Hugepages;

const TOPIC: &str = "hugepages";

/// Sizes of pages in megabytes, and where the kernel counts them.
const SIZES: [(u64, &str); 2] =
    [(2, "/sys/kernel/mm/hugepages/hugepages-2048kB"), (1024, "/sys/kernel/mm/hugepages/hugepages-1048576kB")];

/// Where the number of pages is said for each start; the first wins.
const SYSCTL: [&str; 2] = ["/etc/sysctl.d/60-pshim6.conf", "/usr/lib/sysctl.d/60-pshim6.conf"];

/// Octets for each of `box.contexts_max` in a worker's tables and in control's together: an upper bound, rounded.
const CONTEXT_OCTETS: u64 = 4096;

pub(super) fn hugepages(tree: &Tree, site: &Site, running: bool) -> Finding {
    let wanted = u64::from(site.eal.memory_mb);
    if site.eal.hugepages == Hugepages::Never {
        return Finding::ok(TOPIC, "not used (eal.hugepages = \"never\")");
    }
    // What a running daemon holds is not free, and is what it should hold.
    let kind = if running { "nr_hugepages" } else { "free_hugepages" };
    let found: u64 =
        SIZES.iter().filter_map(|(size, place)| Some(size * tree.number(&format!("{place}/{kind}"))?)).sum();
    let state = if running { "reserved" } else { "free" };
    if found >= wanted {
        return Finding::ok(TOPIC, format!("{found} MB {state}, eal.memory_mb = {wanted}"));
    }
    let reserved = tree.number(&format!("{}/nr_hugepages", SIZES[0].1)).unwrap_or(0);
    let pages = reserved + (wanted - found).div_ceil(2);
    let enough = SYSCTL.iter().find_map(|file| promised(&tree.text(file)?)).is_some_and(|number| number >= pages);
    let command = match enough {
        // Said already, as the package does, and not done yet.
        true => "sysctl --system".to_owned(),
        false => format!("echo 'vm.nr_hugepages = {pages}' > {} && sysctl --system", SYSCTL[0]),
    };
    let text = format!("{found} MB {state}, eal.memory_mb = {wanted}");
    match site.eal.hugepages {
        Hugepages::Require => Finding::fail(TOPIC, format!("{text}: the daemon may not start")).mend(command),
        _ => Finding::warn(TOPIC, format!("{text}: packets may lie in ordinary memory, which is slower")).mend(command),
    }
}

/// The number of pages that a file for sysctl asks for.
fn promised(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("vm.nr_hugepages"))?;
    line.trim_start().strip_prefix('=')?.trim().parse().ok()
}

pub(super) fn ordinary(patient: &Patient<'_>) -> Finding {
    let Patient { tree, config, site, running, .. } = *patient;
    let topic = "memory";
    let available = tree.text("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let Some(available) = available.map(|kilobytes| kilobytes / 1024) else {
        return Finding::warn(topic, "the kernel does not say how much is available");
    };
    let contexts = u64::from(site.node.contexts_max);
    let tables = (contexts * CONTEXT_OCTETS).div_ceil(1024 * 1024);
    let packets = if site.eal.hugepages == Hugepages::Never { u64::from(site.eal.memory_mb) } else { 0 };
    let wanted = tables + packets;
    if running || available >= wanted {
        return Finding::ok(topic, format!("{available} MB available"));
    }
    let text = format!("{available} MB available; {contexts} contexts may take up to {wanted} MB");
    let fit = available.saturating_sub(packets) * 1024 * 1024 / CONTEXT_OCTETS;
    let command = set(config, "box", "contexts_max", &fit.clamp(1, contexts).to_string(), RESTART);
    Finding::warn(topic, text).mend(command)
}
