use super::*;

const ENCODINGS: [Encoding; 5] =
    [Encoding::Utf8, Encoding::Utf16Le, Encoding::Utf16Be, Encoding::Utf32Le, Encoding::Utf32Be];

fn encode(text: &str, encoding: Encoding) -> Vec<u8> {
    match encoding {
        Encoding::Utf8 => text.as_bytes().to_vec(),
        Encoding::Utf16Le => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        Encoding::Utf16Be => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        Encoding::Utf32Le => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        Encoding::Utf32Be => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
    }
}

#[test]
fn the_kinds_are_sorted_and_all_are_recognized() {
    assert!(KINDS.is_sorted());
    assert!(KINDS.iter().all(|kind| is_alias(&format!("[{kind}#12]"))));
}

#[test]
fn equal_values_have_one_identity_in_all_encodings_and_another_in_another_report() {
    let (mut one, mut other) = (Aliases::default(), Aliases::default());
    let mut of = |text: &str, encoding| one.identity("email", &encode(text, encoding), encoding).unwrap();
    let first = of("jürgen@example.org", Encoding::Utf8);
    for encoding in &ENCODINGS[..3] {
        assert_eq!(of("jürgen@example.org", *encoding), first, "{encoding:?}");
        assert_ne!(of("jürgen@example.net", *encoding), first, "{encoding:?}");
    }
    let there = other.identity("email", "jürgen@example.org".as_bytes(), Encoding::Utf8).unwrap();
    assert_ne!(there, first);
    let (mut here, mut there) = (Aliases::default(), Aliases::default());
    let same = (0..100).filter(|n| {
        let value = format!("{n}@example.org").into_bytes();
        let name = |aliases: &mut Aliases| {
            let identity = aliases.identity("email", &value, Encoding::Utf8).unwrap();
            let name = aliases.name(identity, "email", 20).unwrap();
            assert_eq!(aliases.name(identity, "email", 20).unwrap(), name);
            name
        };
        name(&mut here) == name(&mut there)
    });
    // One in 900 by chance.
    assert!(same.count() < 10);
}

#[test]
fn names_fit_and_numbers_that_were_there_are_not_given() {
    let mut aliases = Aliases::default();
    let mut value = |text: &str| aliases.identity("email", text.as_bytes(), Encoding::Utf8);
    let one = value("alicia").unwrap();
    assert_eq!(value("alice"), None, "too short");
    assert_eq!(value(&"a".repeat(LONGEST_VALUE + 1)), None, "no single value");
    let first = one.numbers().next().unwrap();
    assert!((100..1000).contains(&first));
    aliases.take(first);
    let second = one.numbers().nth(1).unwrap();
    for (rule, room, expected) in [
        ("email", 11, Some(format!("[email#{second}]"))),
        ("email", 40, Some(format!("[email#{second}]"))),
        ("email", 10, Some(format!("[#{second}]"))),
        ("email", 6, Some(format!("[#{second}]"))),
        ("email", 5, None),
        ("an-own-rule", 40, Some(format!("[#{second}]"))),
    ] {
        assert_eq!(aliases.name(one, rule, room), expected, "{rule} in {room}");
    }
    assert_eq!(aliases.identity("dropped", b"alice", Encoding::Utf8), None);
    let wide = encode("alice", Encoding::Utf32Be);
    assert_eq!(aliases.identity("email", &wide, Encoding::Utf32Be), None);
    let mut off = Shared::off().clone();
    assert_eq!(off.0.get_mut().unwrap().identity("email", b"alice", Encoding::Utf8), None);
}

#[test]
fn numbers_end_and_no_two_values_have_one() {
    let mut aliases = Aliases::default();
    let mut identity = |n: u32| aliases.identity("email", format!("{n:06}").as_bytes(), Encoding::Utf8);
    let identities: Vec<Identity> = (0..20_000).map(|n| identity(n).unwrap()).collect();
    let mut names = || -> Vec<String> {
        identities.iter().filter_map(|identity| aliases.name(*identity, "", 9)).collect()
    };
    let given = names();
    assert!(given.len() > 19_900, "{}", given.len());
    assert_eq!(names(), given);
    assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    (0..100_000).for_each(|number| aliases.take(number));
    assert_eq!(aliases.name(Identity([7; 16]), "email", 9), None);
}

#[test]
fn only_exact_aliases_are_masked() {
    for (text, expected) in [
        ("a [email#1] b", "a ********* b"),
        ("[us-ssn#99999][#7]", "******************"),
        ("[#1][#1]", "********"),
        ("[alice#1]", "[alice#1]"),
        ("[Email#1]", "[Email#1]"),
        ("[email#0]", "[email#0]"),
        ("[email#01]", "[email#01]"),
        ("[email#123456]", "[email#123456]"),
        ("[email#]", "[email#]"),
        ("[email#1", "[email#1"),
        ("email#1]", "email#1]"),
        ("[email #1]", "[email #1]"),
        ("[email#4111x]", "[email#4111x]"),
        ("[[email#1]]", "[*********]"),
        ("#", "#"),
    ] {
        assert_eq!(masked(text), expected);
        let one = expected.bytes().all(|byte| byte == b'*') && text.matches('#').count() == 1;
        assert_eq!(is_alias(text), one, "{text}");
        for encoding in ENCODINGS {
            let expected = if WIDTHS.contains(&encoding.stride()) { expected } else { text };
            for phase in 0..4 {
                let mut bytes = [vec![1; phase], encode(text, encoding), vec![1; 3]].concat();
                let before = bytes.clone();
                let masked = Masked::mask(&mut bytes);
                assert_eq!(bytes[phase..bytes.len() - 3], encode(expected, encoding), "{text} {encoding:?}");
                masked.each().flatten().for_each(|(at, byte)| bytes[at] = byte);
                assert_eq!(bytes, before);
            }
        }
    }
}

#[test]
fn masks_are_bounded() {
    let mut bytes = "[#1]".repeat(MOST + 10).into_bytes();
    assert_eq!(Masked::mask(&mut bytes).numbers().count(), MOST);
    assert!(bytes.ends_with(b"*[#1][#1][#1][#1][#1][#1][#1][#1][#1][#1]"));
}
