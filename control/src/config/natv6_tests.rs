//! `[natv6]`, `[setup]` and `provider.delegated`: what is good is read to the letter, what is wrong has its place.

use std::time::Duration;

use super::site::Routable;
use super::tests::{GOOD, load};
use super::*;

const DELEGATED: &str = "delegated = \"2001:db8:a1::/48\"";

/// The good file with another line at its first provider, and more at its end.
fn with(provider: &str, more: &str) -> String {
    let place = "prefix = \"2001:db8:a1:1::/64\"\n";
    assert_eq!(GOOD.matches(place).count(), 1);
    GOOD.replace(place, &format!("{place}{provider}\n")) + more
}

fn mapped(subnets: &str) -> String {
    format!("[natv6]\nenabled = true\nmapped = [{subnets}]\n")
}

/// What is said, without its place: the lines are those of a file made here.
fn said(provider: &str, more: &str) -> Vec<String> {
    load(&with(provider, more)).expect_err(more)
}

/// Line and column in a file of [`with`], counted from its last line but `back`.
fn at(provider: &str, more: &str, back: usize, column: usize) -> String {
    format!("site.toml:{}:{column}", with(provider, more).lines().count() - back)
}

#[test]
fn without_its_section_nothing_is_translated_and_thresholds_are_those_of_the_documentation() {
    let (site, _) = load(GOOD).unwrap();
    assert_eq!(site.natv6, None);
    assert_eq!((site.setup.routable, site.setup.packets), (Routable::Deferred, Some(50)));
    assert_eq!((site.setup.octets, site.setup.age), (None, Some(Duration::from_secs(30))));
    let (site, _) = load(&with("", "[natv6]\nidle_s = 300\n")).unwrap();
    assert_eq!(site.natv6, None, "a section alone enables nothing");
}

#[test]
fn what_is_said_is_read() {
    // R6296-010, R6296-020, R6296-029: prefixes are configured by hand, one translator for each provider.
    let text = with(
        DELEGATED,
        "[natv6]\nenabled = true\nidle_s = 300\nmapped = [\"fc00:a:0:2::/64\", \"fc00:a:0:10::/60\"]\n\
         [setup]\nroutable = \"immediate\"\npackets = 0\noctets = 9000\nage_s = 0\n",
    );
    let (site, warnings) = load(&text).unwrap();
    assert_eq!(warnings, []);
    let natv6 = site.natv6.unwrap();
    assert_eq!((natv6.idle, natv6.mapped.len()), (Duration::from_secs(300), 2));
    // R6296-011, R6296-024: the same translator as the data path uses; the other provider has none.
    let pair = natv6.pairs[0].unwrap();
    let (inside, outside) =
        ("fc00:a:0:2::5".parse().unwrap(), pair.outbound("fc00:a:0:2::5".parse().unwrap()).unwrap());
    assert!(pair.is_outside(outside) && pair.inbound(outside) == Ok(inside));
    assert_eq!(natv6.pairs[1], None);
    assert_eq!((site.setup.routable, site.setup.packets), (Routable::Immediate, None));
    assert_eq!((site.setup.octets, site.setup.age), (Some(9000), None));
}

#[test]
fn each_wrong_value_is_named_with_its_place() {
    let subnet = "\"fc00:a:0:2::/64\"";
    // Of the subnets, one has an image where locators are, and one where the link is.
    let taken = |native: &str| {
        let pair = dataplane::natv6::PrefixPair::new(
            ("fc00:a::".parse().unwrap(), 48),
            ("2001:db8:a1::".parse().unwrap(), 48),
        );
        let inside = pair.unwrap().inbound(native.parse().unwrap()).unwrap();
        Prefix::of(inside, 64).unwrap()
    };
    let locators = taken("2001:db8:a1:1::1");
    let long = "delegated = \"2001:db8:a1::/56\"";
    let table = [
        // R6296-045
        (
            "delegated = \"2001:db8:a1:1::/65\"",
            String::new(),
            None,
            "provider[0].delegated: 2001:db8:a1:1::/65 is longer than /64",
        ),
        ("delegated = \"fc00:1::/48\"", String::new(), None, "provider[0].delegated: fc00:1::/48 is not routable"),
        (
            "delegated = \"2001:db8:a2::/48\"",
            String::new(),
            None,
            "provider[0].delegated: 2001:db8:a2::/48 does not hold the provider's prefix 2001:db8:a1:1::/64",
        ),
        (
            DELEGATED,
            mapped("\"fc00:b::/64\""),
            Some(11),
            "natv6.mapped[0]: fc00:b::/64 is not inside site.prefix fc00:a::/48",
        ),
        (DELEGATED, mapped("\"fc00:a:0:2::/80\""), Some(11), "natv6.mapped[0]: fc00:a:0:2::/80 is longer than /64"),
        (
            DELEGATED,
            mapped(&format!("{subnet}, {subnet}")),
            Some(30),
            "natv6.mapped[1]: fc00:a:0:2::/64 overlaps fc00:a:0:2::/64",
        ),
        (
            "",
            mapped(subnet),
            Some(10),
            "natv6.mapped: no provider says what it delegated (provider.delegated), so there are no images",
        ),
        // R6296-032
        (
            DELEGATED,
            mapped("\"fc00:a:0:ffff::/64\""),
            Some(11),
            "natv6.mapped[0]: fc00:a:0:ffff::/64 has no image at provider isp-x: in subnet 0xffff",
        ),
        // RCM-006
        (
            long,
            mapped(subnet),
            Some(10),
            "natv6.mapped: fc00:a::/48 and 2001:db8:a1::/56 of provider isp-x are not both /48 or shorter: subnets are lost, \
             and interface identifiers change (natv6.rewrite_interfaces accepts that)",
        ),
        // RCM-007
        (
            DELEGATED,
            mapped(&format!("\"{locators}\"")),
            Some(11),
            "natv6.mapped[0]: SUBNET would be 2001:db8:a1:1::/64 at provider isp-x, which is in use",
        ),
    ];
    for (provider, more, column, expected) in table {
        let place = match column {
            Some(column) => at(provider, &more, 0, column),
            None => "site.toml:44:13".to_string(),
        };
        let expected = format!("{place}: {expected}").replace("SUBNET", &locators.to_string());
        assert_eq!(said(provider, &more), [expected], "{provider} {more}");
    }
    let never = "[setup]\npackets = 0\nage_s = 0\n";
    let expected = ": setup: every threshold is 0, so none is ever reached; \"never\" for routable says so";
    assert!(said("", never)[0].ends_with(expected), "{:?}", said("", never));
    assert!(load(&with("", "[setup]\nroutable = \"never\"\npackets = 0\nage_s = 0\n")).is_ok());
    assert!(said("", "[setup]\nroutable = \"later\"\n")[0].contains("setup.routable: unknown variant `later`"));
    assert!(said("", "[natv6]\nenable = true\n")[0].contains("natv6.enable: unknown field `enable`"));
    assert!(said("", "[natv6]\nidle_s = 1\n")[0].ends_with("natv6.idle_s: 1 is out of range: 120 to 604800"));
}

#[test]
fn longer_prefixes_are_taken_on_demand_and_with_a_warning() {
    // RCM-006, R6296-023, R6296-025: of a /56 there are 256 subnets.
    let long = "delegated = \"2001:db8:a1::/56\"";
    let (site, warnings) = load(&with(long, &(mapped("\"fc00:a:0:2::/64\"") + "rewrite_interfaces = true\n"))).unwrap();
    assert!(site.natv6.unwrap().pairs[0].unwrap().changes_interface());
    assert!(warnings[0].to_string().contains("natv6.mapped: fc00:a::/48 and 2001:db8:a1::/56"), "{warnings:?}");
    let beyond = said(long, &(mapped("\"fc00:a:0:100::/64\"") + "rewrite_interfaces = true\n"));
    assert!(
        beyond[0].ends_with("fc00:a:0:100::/64 has no image at provider isp-x: not in a mapped subnet"),
        "{beyond:?}"
    );
    // R6296-032: of a large block only the one subnet is lost.
    let (_, warnings) = load(&with(DELEGATED, &mapped("\"fc00:a:0:fff0::/60\""))).unwrap();
    assert!(warnings[0].to_string().ends_with("fc00:a:0:ffff::/64 in it has no image (RFC 6296 section 3.2)"));
}

#[test]
fn any_unicast_prefix_is_translated() {
    // R6296-030, R4193-004; what the site's own prefix may be is the box's rule, not the translator's.
    for (inside, outside) in [("fd00:1:2:", "2001:db8:a1::/48"), ("fc00:a:0:", "2001:db8::/40")] {
        let text = with(&format!("delegated = \"{outside}\""), &mapped("\"fc00:a:0:2::/64\""));
        let text = text
            .replace("fc00:a:0:", inside)
            .replace("fc00:a::", &format!("{}::", inside.trim_end_matches(":0:").trim_end_matches(':')));
        let site = load(&text);
        assert!(site.is_ok(), "{inside} {outside}: {site:?}");
    }
}
