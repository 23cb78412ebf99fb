use super::super::rules;
use super::*;

fn decoded(line: &str) -> Vec<(String, Range<usize>)> {
    let mut all = Vec::new();
    let mut looked = Line::default();
    looked.look(line.as_bytes(), rules::begins());
    each(
        line.as_bytes(),
        &looked,
        Wanted { least: SHORTEST, foreign: true },
        &mut Decoded::default(),
        |decoded| {
            let at = decoded.text.iter().position(|&byte| byte == b'@').unwrap_or(0);
            all.push((String::from_utf8_lossy(&decoded.text).into_owned(), decoded.source(&(at..at + 1))));
        },
    );
    all
}

#[test]
fn pieces_are_decoded_with_their_source() {
    for (line, text, at) in [
        ("x=a%40b.co&y", "x=a@b.co&y", 3..6),
        ("a\\u0040b.co", "a@b.co", 1..7),
        ("k 6140622e636f z", "a@b.co", 4..6),
        ("k 0x6140622e636f z", "a@b.co", 6..8),
        ("k 0X6140622E636F", "a@b.co", 6..8),
        ("x6140622e636f", "a@b.co", 3..5),
        ("id_key-6140622e636fz", "a@b.co", 9..11),
        ("ghost6140622e636f0/key", "a@b.co", 7..9),
        ("06140622e636f", "a@b.co", 3..5),
        ("c 0xd6140622e636f", "a@b.co", 7..9),
        ("\\x61\\x40\\x62\\x2e\\x63\\x6f", "a@b.co", 4..8),
        ("{0x61, 0x40, 0x62,0x2e 0x63, 0x6F}", "{a@b.co}", 7..11),
        ("0x610x400x620x2e0x630x6f", "a@b.co", 4..8),
        ("key=YUBiLmNv;", "a@b.co", 5..7),
        ("d/YUBiLmNv", "a@b.co", 3..5),
        ("00000000-0000-4000-8000-000000000000/YUBiLmNv", "a@b.co", 38..40),
        ("/var/lib/app/cache/x/YUBiLmNv", "a@b.co", 22..24),
        ("-----YUBiLmNv", "a@b.co", 6..8),
        ("/user/d098d0bbd18cd18f40", "Илья@", 22..24),
        ("0xd0,0x98,0xef,0xbd,0xab,0x40", "И\u{ff6b}@", 25..29),
    ] {
        assert!(decoded(line).contains(&(text.to_owned(), at)), "{line}: {:?}", decoded(line));
    }
    // A series is found wherever it stands.
    for before in 0..20 {
        for (series, behind) in [(8, 0), (9, 1), (16, 30), (40, 3)] {
            let text = b"6a".iter().copied().cycle().take(series).collect();
            let word = [vec![b'z'; before], text, vec![b'y'; behind]].concat();
            let mut found = Vec::new();
            hexadecimal(&word, false, |series| found.push(series));
            assert_eq!(found, [before..before + series], "{before} {series} {behind}");
        }
    }
    // Of a word that is longer than any part, too.
    let long = ["/x".repeat(100), "/YUBiLmNv".to_owned()].concat();
    assert!(decoded(&long).iter().any(|(text, _)| text.starts_with("a@b.co")), "{:?}", decoded(&long));
    // Whatever begins as text begins with one of those.
    for first in 0..=255 {
        for second in 0..=255 {
            let begins = [b"AA", b"d3", b"gI"].iter().any(|&&[a, b]| begins_as_text(&[first, second, a, b]));
            assert!(FIRST[usize::from(first)] || !begins, "{first} {second}");
        }
    }
    for line in [
        "0x7f12a4b3c000",
        "0xdeadbeefcafebabe",
        "0x61 0x40 0x62 x",
        "deadbeefdeadbeef",
        "std::basic_string",
        "100% sure",
        "C:\\path\\to",
        "abcdefgh",
        "",
    ] {
        assert_eq!(decoded(line), [], "{line}");
    }
}
