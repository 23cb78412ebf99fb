use std::path::Path;

use super::*;
use crate::scrub::{Engine, Policy, Receipt};

fn blanked(rules: &[Rule], text: &str) -> String {
    let compiled = OwnRules::new(rules).unwrap();
    let (mut hits, mut bytes) = (Vec::new(), text.as_bytes().to_vec());
    compiled.find(text.as_bytes(), &mut hits);
    hits.into_iter().for_each(|hit| bytes[hit.range].fill(b'*'));
    String::from_utf8(bytes).unwrap()
}

#[test]
fn rules_find_what_their_conditions_allow() {
    let id = || Rule::new("player-id", "PLR-[0-9]{8}");
    let number = || Rule::new("account", r"\b[0-9]{16}\b");
    for (rule, text, expected) in [
        (id(), "x PLR-12345678 y PLR-1234567", "x ************ y PLR-1234567"),
        (Rule::new("player-id", "PLR-([0-9]{8})"), "PLR-12345678", "PLR-********"),
        (id().context(["Player"]), "PLR-12345678 player PLR-12345678", "PLR-12345678 player ************"),
        (
            number().check(Check::Luhn),
            "4111111111111111 4111111111111112",
            "**************** 4111111111111112",
        ),
        (number().prefixes(["41"]), "4111111111111111 5111111111111111", "**************** 5111111111111111"),
        (
            Rule::new("token", "[a-z0-9]{12}").entropy(3.0),
            "aaaaaaaaaaaa a1b2c3d4e5f6",
            "aaaaaaaaaaaa ************",
        ),
    ] {
        assert_eq!(blanked(std::slice::from_ref(&rule), text), expected, "{rule:?}");
    }
}

#[test]
fn a_rule_works_in_every_encoding() {
    let policy = Policy { rules: vec![Rule::new("player-id", "PLR-[0-9]{8}")], ..Policy::default() };
    Engine::new(&policy).unwrap();
    let mut report = "seen PLR-12345678".to_owned();
    let mut receipt = Receipt::default();
    crate::scrub::text(&mut report, &policy, &mut receipt);
    assert!(!report.contains("12345678"), "{report}");
    assert_eq!(receipt.entries[0].rule, "player-id");
}

#[test]
fn what_is_no_rule_is_refused_with_its_reason() {
    let bad = [
        (Rule::new("Player", "abcd"), "lower-case"),
        (Rule::new("", "abcd"), "1 to 32"),
        (Rule::new("echo", "abcd"), "engine's own"),
        (Rule::new("a", "ab("), "unclosed group"),
        (Rule::new("a", "[a-z]+"), "upper bound"),
        (Rule::new("a", "(a|aa)+b{3}"), "upper bound"),
        (Rule::new("a", "(a{1,400}){1,400}"), "upper bound"),
        (Rule::new("a", "a?b?"), "3 are the least"),
        (Rule::new("a", "ab"), "3 are the least"),
        (Rule::new("a", "(?:[a-z]{500}|[0-9]{400}|.{512}){1}".repeat(20)), "more than 512"),
        (Rule::new("a", "straße"), "not ASCII"),
        (Rule::new("a", r"\pL{3}"), "Unicode"),
        (Rule::new("a", "x".repeat(2000)), "longer than 1024"),
        (Rule::new("a", "abcd").context([""]), "context words"),
        (Rule::new("a", "abcd").entropy(9.0), "0 to 8"),
        (Rule::new("a", "(".repeat(100) + "abc" + &")".repeat(100)), "nest"),
    ];
    for (rule, reason) in bad {
        let error = OwnRules::new(std::slice::from_ref(&rule)).unwrap_err().to_string();
        assert!(error.contains(reason), "{rule:?}: {error}");
    }
    let many = vec![Rule::new("a", "abcd"); MOST + 1];
    assert!(OwnRules::new(&many).is_err());
}

#[test]
fn a_file_names_the_line_of_what_is_wrong() {
    let path = Path::new("rules.toml");
    let good =
        "[[rule]]\nname = \"player-id\"\npattern = 'PLR-[0-9]{8}'\ncheck = [\"luhn\"]\nentropy = 2.5\n";
    let rules = rules_from_toml(good, path).unwrap();
    assert_eq!(rules, [Rule::new("player-id", "PLR-[0-9]{8}").check(Check::Luhn).entropy(2.5)]);
    assert_eq!(rules_from_toml("", path).unwrap(), []);
    for (text, place, reason) in [
        ("[[rule]]\nname = \"a\"\n\npattern = '[a-z]+'\n", "rules.toml:4:", "upper bound"),
        ("[[rule]]\nname = \"a\"\npattern = 'ab('\n", "rules.toml:3:", "unclosed group"),
        ("[[rule]]\nname = \"a\"\npatern = 'abc'\n", "rules.toml:3:", "unknown field"),
        ("[[rule]]\nname = \"a\"\npattern = 'abcd'\ncheck = [\"crc\"]\n", "rules.toml:4:", "unknown variant"),
        ("[[rule]\n", "rules.toml:1:", ""),
        ("\n\nname = 3\n", "rules.toml:3:", "unknown field"),
        ("[[rule]]\nname = \"a\"\n", "rules.toml:1:", "missing field"),
    ] {
        let error = rules_from_toml(text, path).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn hostile_text_is_searched_in_bounded_steps() {
    // A regex engine that retries from every start would need a day for these.
    let rules = [
        Rule::new("first", "(?:a{0,100}){0,4}bcd"),
        Rule::new("second", "[a-z]{3,400}[0-9]"),
        Rule::new("third", "(?:x[^y]{0,200}y|z[^w]{0,200}w)[0-9]{3}"),
    ];
    let compiled = OwnRules::new(&rules).unwrap();
    for unit in ["a", "ab", "x", "xz", "abc1", "bcd"] {
        let line = unit.repeat(200_000 / unit.len());
        let mut hits = Vec::new();
        compiled.find(line.as_bytes(), &mut hits);
        assert!(hits.len() <= line.len(), "{unit}");
    }
}
