//! The language: what is refused, where, and what comes of the rest.

use std::path::Path;
use std::time::Duration;

use super::rule::{AVOIDED, NEVER, ORDINARY, PREFERRED};
use super::*;
use crate::config::{Hosts, Site};

const SITE: &str = "[box]\nname = \"b\"\n[site]\nprefix = \"fc00:a::/48\"\nlan = \"fc00:a:0:1::/64\"\nport = \"lan\"\n\
    [[port]]\nname = \"lan\"\ndevice = \"net_null0\"\naddresses = [\"fc00:a:0:1::1/64\"]\n\
    [[port]]\nname = \"w1\"\ndevice = \"net_null1\"\naddresses = [\"2001:db8:f1::2/64\"]\n\
    [[port]]\nname = \"w2\"\ndevice = \"net_null2\"\naddresses = [\"2001:db8:f2::2/64\"]\n\
    [[port]]\nname = \"w3\"\ndevice = \"net_null3\"\naddresses = [\"2001:db8:f3::2/64\"]\n\
    [[provider]]\nname = \"one\"\nport = \"w1\"\nprefix = \"2001:db8:a:1::/64\"\nnext_hop = \"2001:db8:f1::1\"\n\
    [[provider]]\nname = \"two\"\nport = \"w2\"\nprefix = \"2001:db8:a:2::/64\"\nnext_hop = \"2001:db8:f2::1\"\n\
    [[provider]]\nname = \"three\"\nport = \"w3\"\nprefix = \"2001:db8:a:3::/64\"\nnext_hop = \"2001:db8:f3::1\"\n\
    [[peer]]\nname = \"shop\"\nulid = \"fc00:c::7\"\nlocators = [\"2001:db8:c:1::7\"]\n";

pub(super) fn parse(text: &str) -> Result<Policy, String> {
    let (site, _) = Site::parse(Path::new("site.toml"), SITE).unwrap_or_else(|problems| panic!("{problems}"));
    let parsed = Policy::parse(Path::new("policy.json"), text, &site, &Hosts::default());
    parsed.map(|(policy, _)| policy).map_err(|problems| problems.to_string())
}

/// The only problem with a policy whose members besides the version are these.
fn refused(members: &str) -> String {
    let text = format!("{{\"version\": 1,\n{members}}}");
    match parse(&text) {
        Ok(policy) => panic!("{text} is taken for {policy:?}"),
        Err(problems) => problems,
    }
}

#[test]
fn what_cannot_be_obeyed_is_refused_with_file_line_and_field() {
    for (members, expected) in [
        ("\"clases\": []", "policy.json:2:8: clases: unknown field `clases`, expected one of"),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {},\n\"ot\": {}}]",
            "policy.json:3:4: classes[0].ot: unknown field `ot`",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"protocol\": \"tcp\"}, \"a_records\": \"withhold\"}]",
            "classes[0].a_records: nobody knows of a question what packets will follow",
        ),
        (
            "\"providers\": {\n\"four\": {}}",
            "policy.json:3:1: providers.four: there is no provider called \"four\"; site.toml has one, two, three",
        ),
        (
            "\"providers\": {\"one\": {\"capacity_mbps\": -1}}",
            "providers.one.capacity_mbps: -1 is not within 0.001 and",
        ),
        ("\"providers\": {\"one\": {}, \"one\": {}}", "providers.one: stands twice"),
        (
            "\"providers\": {\"one\": {\"drain\": true}, \"two\": {\"drain\": true}, \"three\": {\"drain\": true}}",
            "providers: every provider is drained",
        ),
        (
            "\"providers\": {\"one\": {\"capacity_mbps\": 5, \"commit_mbps\": 6}}",
            "providers.one.commit_mbps: is more than",
        ),
        (
            "\"default\": {\"out\": {\"prefer\": [\"four\"]}}",
            "default.out.prefer[0]: there is no provider called \"four\"",
        ),
        ("\"default\": {\"out\": {\"split\": {\"weights\": {\"one\": 0}}}}", "default.out.split.weights: are all zero"),
        (
            "\"default\": {\"out\": {\"split\": {\"weights\": {\"six\": 1}}}}",
            "default.out.split.weights.six: there is no",
        ),
        ("\"default\": {\"out\": {\"split\": {\"weights\": {\"one\": -1}}}}", "weights.one: -1 is not within 0 and"),
        (
            "\"default\": {\"out\": {\"split\": \"capacity\"}}",
            "default.out.split: the capacity of \"one\" is not known",
        ),
        ("\"default\": {\"out\": {\"split\": {\"cheapest_first\": {}}}}", "default.out.split: cannot be filled"),
        (
            "\"default\": {\"out\": {\"never\": [\"one\", \"two\", \"three\"]}}",
            "default.out.never: leaves no provider at all",
        ),
        (
            "\"default\": {\"out\": {\"prefer\": [\"one\"], \"avoid\": [\"one\"]}}",
            "avoid[0]: \"one\" stands in this rule already",
        ),
        (
            "\"default\": {\"out\": {\"pin\": \"one\", \"never\": [\"one\"]}}",
            "default.out.pin: leaves nothing to be preferred",
        ),
        ("\"default\": {\"out\": {}, \"both\": {}}", "default.both: stands for out and in, which stand here too"),
        ("\"default\": {\"fail_back\": \"soon\"}", "default.fail_back: unknown variant `soon`"),
        ("\"default\": {\"fail_back\": {\"after_s\": 0}}", "default.fail_back.after_s: 0 is not within 1 and"),
        ("\"utc_offset\": \"1h\"", "utc_offset: \"1h\" is no offset"),
        ("\"limits\": {\"moves_per_s\": 0}", "limits.moves_per_s: 0 is not within 1 and 5000"),
        ("\"sites\": {\"x\": [\"y\"]}", "sites.x[0]: \"y\" is neither prefix nor address"),
        ("\"classes\": [{\"name\": \"a\", \"match\": {}}]", "classes[0]: says nothing of where its traffic goes"),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"protocol\": \"tcp\"}, \"both\": {}},\n{\"name\": \"a\", \"match\": {\"peers\": [\"shop\"]}, \"both\": {}}]",
            "policy.json:3:2: classes[1].name: there is a class called \"a\" already",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"hosts\": [\"fc00:a::/56\"]}, \"both\": {}},\n{\"name\": \"b\", \"match\": {\"hosts\": [\"fc00:a::5\"]}, \"both\": {}}]",
            "policy.json:3:15: classes[1].match: gets nothing: \"a\" before it takes all of it",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"hosts\": [\"fc00:b::/48\"]}, \"both\": {}}]",
            "match.hosts[0]: fc00:b::/48 is not in fc00:a::/48",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"hosts\": [\"printer\"]}, \"both\": {}}]",
            "match.hosts[0]: \"printer\" is neither a host's name",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"peers\": [\"shopp\"]}, \"both\": {}}]",
            "match.peers[0]: \"shopp\" is neither a peer's name",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"sites\": [\"s\"]}, \"both\": {}}]",
            "match.sites[0]: there is no \"s\" in sites",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"dscp\": [\"64\"]}, \"both\": {}}]",
            "match.dscp[0]: \"64\" is no code point",
        ),
        (
            "\"classes\": [{\"name\": \"a\", \"match\": {\"protocol\": \"esp\", \"ports\": [\"1\"]}, \"both\": {}}]",
            "match.ports: the protocol has no ports",
        ),
        (
            "\"default\": {\"windows\": [{\"from\": \"8:00\", \"to\": \"09:00\", \"both\": {}}]}",
            "windows[0].from: \"8:00\" is no time of day",
        ),
        (
            "\"default\": {\"windows\": [{\"from\": \"22:00\", \"to\": \"06:00\", \"both\": {}}]}",
            "windows[0].to: ends before it begins",
        ),
        (
            "\"default\": {\"windows\": [{\"from\": \"08:00\", \"to\": \"09:00\"}]}",
            "windows[0]: says nothing of where traffic goes",
        ),
        (
            "\"default\": {\"windows\": [{\"from\": \"08:00\", \"to\": \"12:00\", \"both\": {}}, {\"days\": [\"mon\"], \"from\": \"11:59\", \"to\": \"13:00\", \"both\": {}}]}",
            "windows[1]: overlaps default.windows[0]",
        ),
    ] {
        let problems = refused(members);
        assert!(problems.contains(expected) && problems.starts_with("policy.json:"), "{members}: {problems}");
        assert_eq!(problems.lines().count(), 1, "{members}: {problems}");
    }
    assert!(parse("{\"version\": 2}").unwrap_err().contains("policy.json:1:2: version: 2 is not a version"));
    assert!(parse("{}").unwrap_err().contains("missing field `version`"));
    assert!(parse("").unwrap_err().starts_with("policy.json:1:1: EOF"));
    let all = refused("\"providers\": {\"a\": {}},\n\"sites\": {\"s\": []},\n\"default\": {\"out\": {\"pin\": \"b\"}}");
    assert_eq!(all.lines().count(), 3, "all at once: {all}");
}

#[test]
fn too_many_classes_that_look_at_packets_are_refused() {
    let class = |at: usize| format!("{{\"name\": \"c{at}\", \"match\": {{\"dscp\": [\"{at}\"]}}, \"both\": {{}}}}");
    let classes = |count: usize| (0..count).map(class).collect::<Vec<_>>().join(",");
    assert!(parse(&format!("{{\"version\": 1, \"classes\": [{}]}}", classes(15))).is_ok());
    assert!(refused(&format!("\"classes\": [{}]", classes(16))).contains("classes: 16 classes look at packets"));
}

#[test]
fn what_is_said_is_what_counts() {
    let policy = parse(
        "{\"version\": 1, \"utc_offset\": \"-01:30\", \"limits\": {\"moves_per_s\": 7, \"tolerance_percent\": 2, \"rest_s\": 3},
          \"providers\": {\"one\": {\"capacity_mbps\": 8, \"capacity_in_mbps\": 16, \"cost\": 2, \"commit_mbps\": 1,
                                    \"billing\": \"percentile_95\"},
                          \"two\": {\"capacity_mbps\": 80}, \"three\": {\"capacity_mbps\": 800, \"drain\": true}},
          \"sites\": {\"branches\": [\"fc00:d::/32\"]},
          \"classes\": [
            {\"name\": \"web\", \"match\": {\"peers\": [\"shop\"], \"sites\": [\"branches\"], \"protocol\": \"tcp\", \"ports\": [\"80\"]},
             \"out\": {\"pin\": \"two\"}, \"fail_back\": {\"after_s\": 60}},
            {\"name\": \"lab\", \"match\": {\"hosts\": [\"fc00:a:0:1::/72\"]},
             \"both\": {\"prefer\": [\"one\"], \"avoid\": [\"two\"], \"never\": [\"three\"]}, \"fail_back\": \"new_sessions\"}],
          \"default\": {\"out\": {\"split\": \"capacity\"}, \"in\": {\"split\": {\"cheapest_first\": {\"fill_percent\": 50}}},
            \"windows\": [{\"days\": [\"sat\", \"sun\"], \"from\": \"00:00\", \"to\": \"24:00\", \"out\": {\"split\": {\"weights\": {\"two\": 1}}}}]}}",
    )
    .unwrap();
    assert_eq!((policy.utc_offset, policy.moves_per_s, policy.rest), (-5400, 7, Duration::from_secs(3)));
    assert!((policy.tolerance - 0.02).abs() < 1e-12);
    let one = &policy.ways[0];
    assert_eq!((one.capacity, one.cost, one.commit, one.percentile), ([Some(1e6), Some(2e6)], 2.0, 125_000.0, true));
    assert_eq!((policy.ways[1].capacity, policy.ways[2].drain), ([Some(1e7); 2], true));
    let [web, lab, default] = &policy.classes[..] else { panic!("{:?}", policy.classes) };
    assert_eq!(web.rules[0].as_ref().unwrap().tiers, [NEVER, ORDINARY, NEVER]);
    assert!(web.rules[1].is_none() && web.packets.is_some());
    assert_eq!(web.fail_back, FailBack::After(Duration::from_secs(60)));
    assert_eq!(lab.rules[1].as_ref().unwrap().tiers, [PREFERRED, AVOIDED, NEVER]);
    assert_eq!(default.rules[0].as_ref().unwrap().split, Split::Weights(vec![1e6, 1e7, 1e8]));
    assert_eq!(default.rules[1].as_ref().unwrap().split, Split::CheapestFirst { fill: 0.5 });
    let saturday = policy.classes[2].windows.iter().next().unwrap();
    assert_eq!(saturday.1[0].as_ref().unwrap().split, Split::Weights(vec![0.0, 1.0, 0.0]));
    // First match wins; a class that looks at packets is no default context's.
    let at = |text: &str| text.parse().unwrap();
    assert_eq!(policy.class_of(at("fc00:a:0:1::5"), at("fc00:c::7")), 1);
    assert_eq!(policy.class_of(at("fc00:a:0:1:1::5"), at("fc00:c::7")), 1);
    assert_eq!(policy.class_of(at("fc00:a:0:1:8000::5"), at("fc00:c::7")), 2);
    assert_eq!(policy.class_of(at("fc00:a:0:2::5"), at("fc00:c::7")), 2);
    assert!(policy.is_reached(0, at("fc00:a:0:1::5"), at("fc00:d:1::1")));
    assert!(!policy.is_reached(0, at("fc00:a:0:1::5"), at("fc00:e::1")));
}

#[test]
fn a_class_gets_no_packets_of_pairs_that_an_earlier_one_has_all_of() {
    let policy = parse(
        "{\"version\": 1, \"classes\": [
            {\"name\": \"lab\", \"match\": {\"hosts\": [\"fc00:a:0:1::/65\"]}, \"both\": {}},
            {\"name\": \"voice\", \"match\": {\"dscp\": [\"ef\"]}, \"both\": {}}]}",
    )
    .unwrap();
    let reached = |host: &str| policy.is_reached(1, host.parse().unwrap(), "fc00:c::7".parse().unwrap());
    assert!(!reached("fc00:a:0:1::5") && reached("fc00:a:0:1:8000::5"));
}

#[test]
fn the_published_schema_is_that_of_the_types() {
    let published = include_str!("../../../docs/policy.schema.json");
    assert_eq!(published, file::schema(), "pshim6ctl policy schema > docs/policy.schema.json");
}

/// What the page about policies shows can be said.
#[test]
fn examples_in_the_documents_are_of_the_language() {
    let page = include_str!("../../../docs/policy.md");
    let blocks: Vec<&str> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 4, "{}", blocks.len());
    for block in blocks {
        // Sites of their own, whose providers and hosts are none of the site here.
        if let Err(error) = serde_json::from_str::<PolicyFile>(block) {
            panic!("{error} in {block}");
        }
    }
}

#[test]
fn differences_are_told_by_field() {
    let file = |text: &str| serde_json::from_str::<PolicyFile>(text).unwrap();
    let old =
        file("{\"version\": 1, \"providers\": {\"one\": {\"cost\": 1}}, \"default\": {\"out\": {\"pin\": \"one\"}}}");
    let new = file("{\"version\": 1, \"providers\": {\"one\": {\"cost\": 2}}, \"sites\": {\"a\": [\"b\"]}}");
    let told = diff(&old, &new);
    let told: Vec<_> = told.iter().map(|(field, old, new)| (field.as_str(), old.as_deref(), new.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("default.out.pin", Some("\"one\""), None),
            ("providers.one.cost", Some("1.0"), Some("2.0")),
            ("sites.a", None, Some("[\"b\"]")),
        ]
    );
    assert!(diff(&new, &new).is_empty());
}
