//! `site.identifier_blocks` and what goes by it: what is good is read, what is wrong has its place.

use super::tests::{GOOD, load};
use super::*;

/// The good file with these blocks, and something else said.
fn with(blocks: &str, changes: &[(&str, &str)]) -> Result<(Site, Vec<Problem>), Vec<String>> {
    let place = "[site]\n";
    assert_eq!(GOOD.matches(place).count(), 1);
    let mut text = GOOD.replace(place, &format!("[site]\nidentifier_blocks = [{blocks}]\n"));
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    load(&text)
}

#[test]
fn a_site_may_have_its_identifiers_elsewhere_and_its_peers_too() {
    let (site, _) = load(GOOD).unwrap();
    assert_eq!(site.identifier_blocks, []);
    // R4193-001: fc00::/7 is where identifiers come from unless the operator says so.
    let moved = [("fc00:a:", "5f00:a:")];
    let (site, _) = with("\"5f00::/16\", \"2001:db8:ffff::/48\"", &moved).unwrap();
    assert_eq!(site.prefix.to_string(), "5f00:a::/48");
    let blocks: Vec<String> = site.identifier_blocks.iter().map(Prefix::to_string).collect();
    assert_eq!(blocks, ["5f00::/16", "2001:db8:ffff::/48"]);
    let problems = with("\"5f01::/16\"", &moved).unwrap_err();
    assert!(
        problems[0].contains("site.prefix: 5f00:a::/48 is not in fc00::/7") && problems[0].contains("nor in a block"),
        "{problems:?}"
    );
}

#[test]
fn a_block_holds_nothing_but_identifiers() {
    let nine: Vec<String> = (0..9).map(|number| format!("\"5f00:{number}::/32\"")).collect();
    for (blocks, said) in [
        ("\"fd00::/8\"", "identifier_blocks[0]: fd00::/8 is in fc00::/7"),
        ("\"5f00::/7\"", "bits are set beyond /7"),
        ("\"4000::/4\"", "is not between /8 and /64 long"),
        ("\"2000::/8\"", "is not between /16 and /64 long"),
        ("\"5f00::/80\"", "is not between /8 and /64 long"),
        ("\"ff00::/8\"", "means something else".trim_start_matches("means ")),
        ("\"fe80::/10\"", "something else"),
        ("\"::/64\"", "something else"),
        ("\"64:ff9b::/32\"", "something else"),
        ("\"5f00::/16\", \"5f00:a::/32\"", "identifier_blocks[1]: 5f00:a::/32 overlaps 5f00::/16"),
        // What providers delegate, where their routers are, and where peers are.
        (
            "\"2001:db8:a1::/48\"",
            "provider[0].prefix: 2001:db8:a1:1::/64 and the identifiers' block 2001:db8:a1::/48 overlap",
        ),
        ("\"2001:db8:aa::/48\"", "port[1].addresses[0]: 2001:db8:aa::2/64 is in the identifiers' block"),
        ("\"2001:db8:b1::/48\"", "is in the identifiers' block 2001:db8:b1::/48, so it locates nobody"),
        (&nine.join(", "), "has 9 entries: at most 8"),
    ] {
        let problems = with(blocks, &[]).map(|_| ()).expect_err(blocks);
        assert!(problems.iter().any(|problem| problem.contains(said)), "{blocks}: {problems:?}");
    }
}
