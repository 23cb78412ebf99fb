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
        (Rule::new("line", "^b player$"), "a player\nb player\nb players", "a player\n********\nb players"),
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
        (Rule::new("email", "abcd"), "engine's own"),
        (Rule::new("section-headers", "abcd"), "engine's own"),
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
        (
            Rule::new("a", "[a-z].{1,250}[b-z].{1,250}~"),
            "steps a character, and 2048 are the most: have it begin with",
        ),
    ];
    for (rule, reason) in bad {
        let error = OwnRules::new(std::slice::from_ref(&rule)).unwrap_err().to_string();
        assert!(error.contains(reason), "{rule:?}: {error}");
    }
    let many = vec![Rule::new("a", "abcd"); MOST + 1];
    assert!(OwnRules::new(&many).is_err());
    // Each may be, but not so many of them.
    let dear: Vec<Rule> = (0..MOST)
        .map(|number| Rule::new(format!("r{number}"), format!("abc(?:[a-z]{{{}}}Z)?", 500 - number)))
        .collect();
    assert!(OwnRules::new(&dear[..8]).is_ok());
    let error = OwnRules::new(&dear).unwrap_err().to_string();
    assert!(error.contains("all rules") && error.contains("takes 168"), "{error}");
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
        ("[[rule]]\npattern = 'abcd'\n\nname = \"A\"\n", "rules.toml:4:", "lower-case"),
        ("[[rule]]\nname = \"email\"\npattern = 'abcd'\n", "rules.toml:2:", "engine's own"),
        ("[[rule]]\nname = \"a\"\npattern = 'abcd'\nprefixes = [\"\"]\n", "rules.toml:4:", "prefixes"),
        ("[[rule]]\nname = \"a\"\ncontext = [\"\"]\npattern = 'abcd'\n", "rules.toml:3:", "context words"),
        ("[[rule]]\nname = \"a\"\npattern = 'abcd'\n\nentropy = 9.0\n", "rules.toml:5:", "0 to 8"),
        ("[[rule]]\nname = \"a\"\npattern = \"PLR-\\d{8}\"\n", "rules.toml:3:", "single quotes"),
        ("[[rule]]\nname = \"a\"\npattern = \"\\b[0-9]{8}\"\n", "rules.toml:3:", "single quotes"),
        ("\n[rule]\nname = \"a\"\npattern = 'abcd'\n", "rules.toml:2:", "[[rule]]"),
    ] {
        let error = rules_from_toml(text, path).unwrap_err().to_string();
        assert!(error.contains(place) && error.contains(reason), "{text:?}: {error}");
    }
}

#[test]
fn a_file_of_rules_is_a_regular_one_and_has_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("long"), vec![b'#'; (1 << 20) + 1]).unwrap();
    std::fs::write(path("bytes"), b"\xff\xfe").unwrap();
    std::fs::write(path("good"), vec![b'#'; 1 << 20]).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    let said = |path: &Path| rules_from_file(path).map_err(|error| error.to_string());
    assert_eq!(said(&path("good")).unwrap(), []);
    for (path, reason) in [
        (Path::new("/dev/zero"), "no regular file"),
        (folder.path(), "no regular file"),
        (&path("pipe"), "no regular file"),
        (&path("long"), "1 MiB"),
        (&path("bytes"), "UTF-8"),
        (&path("absent"), "cannot read"),
    ] {
        let said = said(path).unwrap_err();
        assert!(said.contains(reason) && said.contains(path.to_str().unwrap()), "{said}");
    }
}

/// A receipt travels, and who guesses a name could see from a hash of it that it was right.
#[test]
fn the_digest_of_a_policy_has_no_value_of_a_person_in_it() {
    let digest = Policy::version;
    let plain = Policy { rules: vec![Rule::new("player-id", "PLR-[0-9]{8}")], ..Policy::default() };
    let personal = Policy {
        known: vec!["wilhelmina".to_owned()],
        arguments: Some(4096..8192),
        argument_strings: "game\0--user=wilhelmina\0".to_owned(),
        environment_strings: "USER=wilhelmina\0".to_owned(),
        wishes: vec![("secret-range".to_owned(), vec![crate::scrub::Wish::Memory(7..9)])],
        ..plain.clone()
    };
    assert_eq!(digest(&plain), digest(&personal));
    assert_eq!(digest(&plain).len(), 16);
    assert_ne!(digest(&plain), digest(&Policy::default()));
    assert_ne!(digest(&plain), digest(&Policy { level: crate::scrub::Level::Pointers, ..plain.clone() }));
}

#[test]
fn hostile_text_is_searched_in_bounded_steps() {
    // A regex engine that retries from every start would need a day for these.
    let rules = [
        Rule::new("first", "(?:a{0,100}){0,4}bcd"),
        Rule::new("second", "[a-z]{3,400}[0-9]"),
        Rule::new("third", "(?:x[^y]{0,20}y|z[^w]{0,20}w)[0-9]{3}"),
    ];
    let compiled = OwnRules::new(&rules).unwrap();
    for unit in ["a", "ab", "x", "xz", "abc1", "bcd"] {
        let line = unit.repeat(200_000 / unit.len());
        let mut hits = Vec::new();
        compiled.find(line.as_bytes(), &mut hits);
        assert!(hits.len() <= line.len(), "{unit}");
    }
}

/// The page's example is read, and what it names are the limits.
#[test]
fn the_page_about_rules_shows_some_that_work() {
    let page = include_str!("../../../docs/rules.md");
    let (_, example) = page.split_once("```toml\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let rules = rules_from_toml(example, Path::new("rules.toml")).unwrap();
    assert_eq!(
        blanked(&rules, "player PLR-12345678, PLR-12345678, order 4111111111111111"),
        "player PLR-********, PLR-********, order ****************"
    );
    for limit in [
        MOST,
        LONGEST_PATTERN,
        LONGEST_NAME,
        SHORTEST_MATCH,
        LONGEST_MATCH,
        MOST_WORDS,
        LONGEST_WORD,
        CONTEXT,
        cost::MOST,
        cost::MOST_OF_ALL,
    ] {
        assert!(page.contains(&format!("{limit}")), "{limit}");
    }
    for name in RESERVED.iter().chain(KINDS) {
        let privacy = include_str!("../../../PRIVACY.md");
        let tokens = ["-key", "-key-id", "-token", "-webhook", "aws-secret"];
        let listed =
            privacy.contains(&format!("`{name}`")) || tokens.iter().any(|token| name.ends_with(token));
        assert!(listed, "{name} is not in PRIVACY.md");
    }
}
