use super::*;

fn finding(range: Range<usize>, encoding: Encoding) -> Finding {
    Finding { range, encoding, rule: "email" }
}

#[test]
fn text_is_filled_in_its_encoding_and_logged_as_whole_characters() {
    for (encoding, before, after) in [
        (Encoding::Utf8, &b"-ab*-"[..], &b"-***-"[..]),
        (Encoding::Utf16Le, b"-a\0b\0*\0-", b"-*\0*\0*\0-"),
        (Encoding::Utf16Be, b"-\0a\0b\0*-", b"-\0*\0*\0*-"),
        (Encoding::Utf32Le, b"-a\0\0\0b\0\0\0*\0\0\0-", b"-*\0\0\0*\0\0\0*\0\0\0-"),
        (Encoding::Utf32Be, b"-\0\0\0a\0\0\0b\0\0\0*-", b"-\0\0\0*\0\0\0*\0\0\0*-"),
    ] {
        let (mut bytes, mut receipt) = (before.to_vec(), Receipt::default());
        Editor::new(&mut bytes, &mut receipt).blank(
            &finding(1..before.len() - 1, encoding),
            None,
            Place::Heap,
            None,
        );
        assert_eq!(bytes, after);
        assert_eq!(receipt.discrepancy(before, after), None);
        let entry = &receipt.entries[0];
        assert_eq!((entry.offset, entry.length), (1, 2 * encoding.stride() as u64), "{encoding:?}");
    }
}

#[test]
fn pointers_are_not_half_overwritten() {
    let mapped = Addresses::new(std::iter::once(0x6161_0000..0x6162_0000));
    let guard = Guard::new(&mapped, 0, 0, 8);
    let mut pointer = 0x6161_6161_u64.to_le_bytes().to_vec();
    pointer.extend(b"bbbbbbbb");
    pointer.extend(0x6161_6161_u64.to_le_bytes());
    let run = |range: Range<usize>| {
        let (mut bytes, mut receipt) = (pointer.clone(), Receipt::default());
        Editor::new(&mut bytes, &mut receipt).blank(
            &finding(range, Encoding::Utf8),
            None,
            Place::Stack,
            Some(guard),
        );
        assert_eq!(receipt.discrepancy(&pointer, &bytes), None);
        bytes.iter().enumerate().filter(|(_, b)| **b == b'*').map(|(at, _)| at).collect::<Vec<_>>()
    };
    assert_eq!(run(2..12), (8..12).collect::<Vec<_>>(), "head");
    assert_eq!(run(10..20), (10..16).collect::<Vec<_>>(), "tail");
    assert_eq!(run(1..3), [0; 0], "inside");
    assert_eq!(run(8..16), (8..16).collect::<Vec<_>>(), "no pointer");
    assert_eq!(run(0..8), (0..8).collect::<Vec<_>>(), "wholly inside a match");
}

#[test]
fn zeroing_logs_what_changed_and_merges_neighbours() {
    let (mut bytes, mut receipt) = (b"\0\0ab\0c\0\0dd".to_vec(), Receipt::default());
    let before = bytes.clone();
    let mut editor = Editor::new(&mut bytes, &mut receipt);
    editor.zero(0..2, Place::Heap, "x");
    editor.zero(0..8, Place::Heap, "x");
    editor.zero(8..9, Place::Heap, "x");
    editor.zero(9..10, Place::Heap, "x");
    assert_eq!(receipt.discrepancy(&before, &bytes), None);
    assert_eq!(receipt.entries.iter().map(|e| (e.offset, e.length)).collect::<Vec<_>>(), [(2, 4), (8, 2)]);
}

#[test]
fn filled_words_are_logged_whole_and_once() {
    let before = [[1; 8], [WORD_FILL; 8], [WORD_FILL, 0, 0, 0, 0, 0, 0, 2], [3; 8]].as_flattened().to_vec();
    let (mut bytes, mut receipt) = (before.clone(), Receipt::default());
    let mut editor = Editor::new(&mut bytes, &mut receipt);
    for word in [0..8, 8..16, 16..24, 24..32, 24..32] {
        editor.fill_word(word, Place::Stack, "x");
    }
    assert_eq!(bytes, [WORD_FILL; 32]);
    assert_eq!(receipt.discrepancy(&before, &bytes), None);
    let entries: Vec<_> = receipt.entries.iter().map(|e| (e.offset, e.length, &*e.encoding)).collect();
    assert_eq!(entries, [(0, 8, "word"), (16, 16, "word")]);
}

#[test]
fn addresses_merge() {
    let set = Addresses::new([10..20, 15..30, 40..40, 50..51]);
    let inside: Vec<_> = (0..60).filter(|&at| set.contains(at)).collect();
    assert_eq!(inside, (10..30).chain(50..51).collect::<Vec<_>>());
}
