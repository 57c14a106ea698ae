//! How long it may take until sessions go on, once the network works again.

use std::time::Duration;

use crate::config::Site;

/// What the way itself, the workers' reports and the next packet of a host may add.
const GRACE: Duration = Duration::from_secs(3);

/// The longest time from the moment at which every path works again (and nobody interferes any more) to the moment at
/// which a session goes on, whatever state faults have left its context in at either side. The next packet of the host
/// comes on top.
///
/// Everything that is sent from that moment on arrives, so a context only has to wait until the next message is sent that
/// brings it on. Which one that is depends on its state at the side that waits longest:
///
/// - *Exploring* or *InboundOk* (RFC 5534 §4.3, §7): the next Probe by the clock. Gaps grow to Max Probe Timeout and are
///   only ever shortened by jitter, so it leaves within **Max Probe Timeout**. It reaches the peer whichever pair it is
///   sent on; the answer and the peer's own probe are answers, which wait for no clock. A peer that has lost the context
///   answers with R1bis at once.
/// - *Operational*, the peer too: nothing to wait for. The peer is elsewhere in this list otherwise.
/// - *I2bis-SENT* or *I2-SENT* (RFC 5533 §7.12, §7.19): if the responder validator is still good, the next
///   retransmission is answered. If the peer has restarted since, or it is too old, none is, and the context goes back to
///   I1 after all of them: waits of TIMEOUT · 2^n for n from 0 to RETRIES_MAX, each drawn up to half as long again,
///   **1.5 · TIMEOUT · (2^(RETRIES_MAX + 1) − 1)**. The I1 is answered, and so is what follows.
/// - *I1-SENT* (§7.8): the next I1 is answered. The longest wait for it is that after the last but one. After the last one
///   the exchange fails, and the pair is left alone for NO_R1_HOLDDOWN_TIME; the next packet then begins a new one:
///   **1.5 · I1_TIMEOUT · 2^I1_RETRIES_MAX + NO_R1_HOLDDOWN_TIME**.
/// - *E-FAILED*: what is left of the hold-down, which is less.
///
/// None of these leads to another one that has to wait, so the longest of them is the bound. With the defaults of both
/// RFCs it is that of I1-SENT, 96 s + 60 s; REAP's own part is 60 s.
pub fn recovery(site: &Site) -> Duration {
    let wanted = &site.shim6;
    let all_waits = |timeout: Duration, retries: u32| timeout.mul_f64(1.5) * ((1 << (retries + 1)) - 1);
    let i2 = all_waits(wanted.i2_timeout, wanted.i2_retries.into());
    let i2bis = all_waits(wanted.i2bis_timeout, wanted.i2bis_retries.into());
    let i1 = wanted.i1_timeout.mul_f64(1.5) * (1 << u32::from(wanted.i1_retries)) + wanted.no_r1_holddown;
    exploration(site).max(i2).max(i2bis).max(i1 + GRACE)
}

/// The part of [`recovery`] for contexts that both sides have kept and that no exchange is under way for.
pub fn exploration(site: &Site) -> Duration {
    site.reap.max_probe + GRACE
}

/// The longest outage when one provider of two sites at rest fails for all packets, or only in one way, and `pairs` pairs
/// of locators might be tried of which at least one works.
///
/// - The side that sends notices after **Send Timeout** without a sign of life (RFC 5534 §6.4). If only its own packets get
///   lost, and the other side has nothing to send, that side goes on with Keepalives for a Keepalive Timeout after the
///   last packet it got, which is what we told it, our **Send Timeout** again. A provider that fails both ways may lose
///   packets one way only, since after earlier faults the two ways of a session need not use the same providers.
/// - It probes one pair after the other, at the latest the last of them works: the **gaps after each of `pairs` probes**,
///   the first ones Initial Probe Timeout, the further ones twice as long each time up to Max Probe Timeout (§4.3, §7).
///   Jitter only shortens them.
/// - The answer to that probe may need another way than the probe, and the other side a **round** of its own to find it,
///   while ours goes on.
pub fn detour(site: &Site, pairs: u32) -> Duration {
    site.reap.send_timeout * 2 + gaps(site, 2 * pairs) + GRACE
}

/// The waits after each of so many probes.
fn gaps(site: &Site, probes: u32) -> Duration {
    let reap = &site.reap;
    let initial = u32::from(reap.initial_probes);
    let gap = |sent: u32| {
        let doubled = 1u32.checked_shl((sent + 1).saturating_sub(initial)).unwrap_or(u32::MAX);
        reap.probe_interval.saturating_mul(doubled).min(reap.max_probe)
    };
    (1..=probes).map(gap).sum()
}

/// How long an exchange that cannot succeed may still go on beside payload that flows: I2bis with a validator that is no
/// good any more. When it ends, the context is set up anew, and packets wait for that for a moment.
pub fn settled(site: &Site) -> Duration {
    let wanted = &site.shim6;
    wanted.i2bis_timeout.mul_f64(1.5) * ((1 << (u32::from(wanted.i2bis_retries) + 1)) - 1) + GRACE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Plan, World};

    #[test]
    fn the_defaults_of_both_rfcs_give_what_the_documentation_says() {
        let world = World::new(&Plan::default(), 1);
        let site = world.nodes[0].site();
        assert_eq!(recovery(site), Duration::from_secs(96 + 60) + GRACE);
        assert_eq!(exploration(site), Duration::from_secs(60) + GRACE);
        assert_eq!(settled(site), Duration::from_secs(42) + GRACE);
        // R5534-043: 0.5, 0.5, 0.5, 1 after the first four probes, then twice as long each time.
        assert_eq!([2, 4, 6].map(|probes| gaps(site, probes)), [1_000, 2_500, 8_500].map(Duration::from_millis));
        assert_eq!(detour(site, 2), site.reap.send_timeout * 2 + Duration::from_millis(2_500) + GRACE);
    }
}
