use super::*;

fn found(values: &[&str], bytes: &[u8]) -> Vec<(Range<usize>, Encoding)> {
    let values: Vec<String> = values.iter().map(|&v| v.to_owned()).collect();
    let mut all = Vec::new();
    Known::new(&values).unwrap().find(bytes, &mut all);
    all.into_iter().map(|f| (f.range, f.encoding)).collect()
}

#[test]
fn values_are_found_in_every_encoding_at_every_phase_in_any_case() {
    for value in ["wilhelmina", "Jürgen Müller", "/home/wilhelmina", "日本太郎", "C:\\Users\\x y"] {
        for encoding in [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Utf32Le] {
            for phase in 0..70 {
                let mut bytes = vec![0; phase];
                let needle = encode(&value.to_ascii_uppercase(), encoding);
                bytes.extend(&needle);
                bytes.extend([0; 70]);
                let hit = (phase..phase + needle.len(), encoding);
                assert!(found(&[value], &bytes).contains(&hit), "{value} {encoding:?} {phase}");
            }
        }
    }
}

#[test]
fn short_and_common_values_match_as_whole_fields_only() {
    for (value, text, expected) in [
        ("bob", "/home/bob/x", true),
        ("bob", "user=bob;", true),
        ("bob", "\u{1}bob\u{1}", true),
        ("bob", "user bob went", true),
        ("bob", "/home/bobby/x", false),
        ("bob", "kebob/x", false),
        ("bob", "bob_1", false),
        ("me", "/home/me/x", true),
        ("me", "ask me now", false),
        ("root", "/root/.ssh", true),
        ("root", "rootkit chroot", false),
        ("root", "the root cause", false),
        ("root", "USER=root x", true),
        ("root", "\u{1}root\u{1}", true),
        ("localhost", "http://localhost:80", true),
        ("localhost", "localhosts", false),
        ("alicia", "xalicia1", true),
        ("/", "a/b/c", false),
        ("", "a b", false),
    ] {
        assert_eq!(!found(&[value], text.as_bytes()).is_empty(), expected, "{value} in {text}");
        let wide = encode(text, Encoding::Utf16Le);
        assert_eq!(!found(&[value], &wide).is_empty(), expected, "{value} in wide {text}");
    }
}

#[test]
fn overlapping_values_are_covered_together() {
    assert_eq!(found(&["alice.smith", "smithson-long"], b"-alice.smithson-long-"), [(1..20, Encoding::Utf8)]);
    let many = "a".repeat(100_000);
    assert_eq!(found(&["aaaaaa", "aaaaaaa"], many.as_bytes()), [(0..100_000, Encoding::Utf8)]);
}

#[test]
fn cut_off_phrases_are_noticed() {
    let known = Known::new(&["Jane Q. Public".to_owned(), "wilhelmina".to_owned()]).unwrap();
    assert_eq!(known.cut_at_end(b"by jane q. P"), 3);
    assert_eq!(known.cut_at_end(b"nothing here"), 12);
    assert_eq!(known.cut_at_start(b"ne Q. PUBLIC wrote"), 12);
    assert_eq!(known.cut_at_start(b"nothing"), 0);
}

#[test]
fn copies_of_the_environment_are_found_if_they_may_be_secret() {
    let environment = b"TERM=xterm-256color\0PW=hunter2-long\0HOME=/home/x1\0N=12345678\0S=short1\0\0=x";
    let known = Known::copies(environment, b"game\0--token=abcdefgh1\0positional9\0/usr/bin/x86_64")
        .unwrap()
        .unwrap();
    assert!(Known::copies(b"LANG=C\0TERM=xterm", b"game\0-v").unwrap().is_none());
    let text =
        b"xterm-256color hunter2-long /home/x1 12345678 short1 --token=abcdefgh1 positional9 /usr/bin/x86_64";
    let mut all = Vec::new();
    known.find(text, &mut all);
    let found: Vec<_> = all.iter().map(|f| std::str::from_utf8(&text[f.range.clone()]).unwrap()).collect();
    assert_eq!(found, ["hunter2-long", "abcdefgh1", "positional9"]);
    assert_eq!(all[0].rule, "environment-value");
}

#[test]
fn limits_are_errors() {
    assert!(matches!(Known::new(&vec!["x".repeat(9); MOST + 1]), Err(Error::Limit { .. })));
    assert!(matches!(Known::new(&["x".repeat(LONGEST + 1)]), Err(Error::Limit { .. })));
}
