//! What stands where a value was.

use super::*;

/// Each text in its encoding between zeros, and where it begins.
fn memory(texts: &[(&str, Wide)]) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = vec![0; 8];
    let mut starts = Vec::new();
    for &(text, wide) in texts {
        starts.push(bytes.len());
        bytes.extend(encode(text, wide));
        bytes.extend([0; 8]);
    }
    (bytes, starts)
}

/// Scrubs those and says what became of each.
fn becomes(texts: &[(&str, Wide)]) -> Vec<String> {
    let (bytes, starts) = memory(texts);
    let (after, _) = scrubbed(&bytes, &layout(0, bytes.len()), &engine());
    let (again, second) = scrubbed(&after, &layout(0, bytes.len()), &engine());
    assert_eq!((again, second.entries), (after.clone(), vec![]), "scrubbing twice changes nothing more");
    let one = |(&(text, wide), &start): (&(&str, Wide), &usize)| {
        let wide = &after[start..start + encode(text, wide).len()];
        String::from_utf8(wide.iter().copied().filter(|&byte| byte != 0).collect()).unwrap()
    };
    let all: Vec<String> = texts.iter().zip(&starts).map(one).collect();
    in_order(&all.join("\n")).split('\n').map(str::to_owned).collect()
}

#[test]
fn equal_values_have_equal_aliases_across_encodings() {
    let texts: Vec<_> = WIDE
        .into_iter()
        .flat_map(|wide| [("wilma@example.com", wide), ("by wilhelmina", wide), ("to 203.0.113.77", wide)])
        .collect();
    let aliases = ["[email#1]********", "by [#2]******", "to [ipv4#3]****"];
    let fill = ["*****************", "by **********", "to ************"];
    let all = becomes(&texts);
    let (narrow, wide) = all.split_at(9);
    assert_eq!(narrow, aliases.repeat(3));
    assert_eq!(wide, fill);
    let others = [("vilma@example.com", Wide::Utf8), ("wilma@example.com", Wide::Utf16Be)];
    assert_eq!(becomes(&others), ["[email#1]********", "[email#2]********"]);
}

#[test]
fn a_name_that_would_repeat_the_value_is_left_out() {
    assert_eq!(becomes(&[("xemail@example.com", Wide::Utf8)]), ["[#1]**************"]);
    assert_eq!(
        becomes(&[("xemal@example.com", Wide::Utf8)]),
        ["[email#1]********"],
        "three in a row mean nothing"
    );
}

#[test]
fn an_alias_is_no_context_and_no_value() {
    for text in [
        "[us-ssn#12] 123456788 left",
        "password=[password#1]****",
        "password: [#77] [phone#3]******",
        "https://[url-user-info#1]*@host/",
        "/home/[#5]*****/x",
    ] {
        for wide in &WIDE[..3] {
            assert_eq!(becomes(&[(text, *wide)]), [text], "{wide:?}");
        }
    }
}

#[test]
fn what_only_looks_like_an_alias_is_text() {
    for (text, expected) in [
        ("[wilma@example.com#1]", "[[email#1]********#1]"),
        ("[email#4111111111111111]", "[email#[#1]************]"),
        ("[wilhelmina#1]", "[[#1]******#1]"),
        ("[#7]wilma@example.com[#7]", "[#7][email#1]********[#7]"),
    ] {
        assert_eq!(becomes(&[(text, Wide::Utf8)]), [expected]);
    }
}

#[test]
fn an_alias_that_is_partly_blanked_goes() {
    let (bytes, starts) = memory(&[("[email#1]***", Wide::Utf8)]);
    let address = layout(0, 0).memory[1].address;
    let arguments = Some(address + starts[0] as u64 + 3..address + starts[0] as u64 + 5);
    let engine = Engine::new(&Policy { arguments, ..policy() }).unwrap();
    let (after, receipt) = scrubbed(&bytes, &layout(0, bytes.len()), &engine);
    assert_eq!(after[starts[0]..starts[0] + 12], *b"***\0\0*******");
    assert!(receipt.entries.iter().any(|entry| entry.rule == "alias"));
}

#[test]
fn reports_have_the_numbers_of_their_dumps() {
    let (mut dump, _) = memory(&[("by vilma@example.com", Wide::Utf16Le), ("wilma@example.com", Wide::Utf8)]);
    let (layout, mut receipt) = (layout(0, dump.len()), Receipt::default());
    let mut engine = engine();
    engine.dump(&mut dump, &layout, &mut receipt).unwrap();
    let mut log = b"of wilma@example.com and vera@example.com".to_vec();
    engine.attachment(&mut log, &mut receipt).unwrap();
    assert_eq!(in_order(std::str::from_utf8(&log).unwrap()), "of [email#1]******** and [email#2]*******");
    let alias = &log[3..20];
    assert!(dump.windows(17).any(|window| window == alias), "the same as in the dump");
    // Another report knows nothing of these: one in 900 is the same by chance.
    let other = |_| {
        let mut log = b"of wilma@example.com".to_vec();
        engine.clone().attachment(&mut log, &mut Receipt::default()).unwrap();
        log[3..20] != *alias
    };
    assert!((0..4).any(other));
    let mut words = "of wilma@example.com".to_owned();
    text(&mut words, &policy(), &mut receipt);
    assert_eq!(words, "of *****************");
}

#[test]
fn no_alias_is_a_pointer() {
    let (bytes, starts) = memory(&[("wilma@example.com", Wide::Utf8)]);
    for (base, expected) in [(0x616d_655b_u64, "*****************"), (0x0100_0000, "[email#1]********")] {
        let mut layout = Layout { processor: 0, ..layout(0, bytes.len()) };
        layout.memory[1].address = 0x1000;
        layout.memory.remove(0);
        layout.threads.clear();
        layout.modules.push(ModuleEntry {
            base,
            size: 0x10,
            name: 0..0,
            codeview: 0..0,
            debug_file: 0..0,
            build_id: 0..0,
        });
        let (after, _) = scrubbed(&bytes, &layout, &engine());
        let text = in_order(&String::from_utf8_lossy(&after[starts[0]..starts[0] + 17]));
        assert_eq!(text, expected, "{base:x}");
    }
}

#[test]
fn receipts_prove_aliases_and_nothing_else() {
    let (bytes, starts) = memory(&[("wilma@example.com", Wide::Utf16Be)]);
    let (after, receipt) = scrubbed(&bytes, &layout(0, bytes.len()), &engine());
    let alias = receipt.entries[0].alias.clone().unwrap();
    assert_eq!(in_order(&alias), "[email#1]**");
    let mut other = after.clone();
    other[starts[0] + 3] = b'x';
    assert!(receipt.discrepancy(&bytes, &other).is_some());
    for forged in [None, Some("wilma@exa"), Some("[wilma#1]"), Some("[email#2]")] {
        let mut receipt = receipt.clone();
        receipt.entries[0].alias = forged.map(str::to_owned);
        assert!(receipt.discrepancy(&bytes, &after).is_some(), "{forged:?}");
    }
    let file = tempfile::tempfile().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &after, 0).unwrap();
    let mut receipt = receipt;
    receipt.describe(&after, receipt.entries.len());
    receipt.verify(&file).unwrap();
    receipt.entries[0].alias = Some("[ipv4#1]".to_owned());
    assert!(receipt.verify(&file).is_err());
}
