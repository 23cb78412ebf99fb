use super::*;
use crate::dump::layout::{MemoryEntry, ModuleEntry, ThreadEntry};
use crate::scrub::Receipt;
use crate::scrub::receipt::WORD_FILL;

const FILL: u64 = u64::from_le_bytes([WORD_FILL; 8]);

#[test]
fn stacks_keep_pointers_and_small_integers_above_the_stack_pointer() {
    let mut bytes = vec![0; 1232];
    bytes[152..160].copy_from_slice(&0x7000_0013_u64.to_le_bytes());
    let stack = bytes.len();
    bytes.extend(b"xyz");
    for word in [
        0x40_1000,
        0x40_1000,
        0x40_1000,
        u64::from_le_bytes(*b"alice@ex"),
        0x7000_0010,
        4096,
        (-4096i64).cast_unsigned(),
        4097,
        0x50_0000,
        0x50_0001,
    ] {
        bytes.extend(u64::to_le_bytes(word));
    }
    bytes.extend(b"tail");
    let heap = bytes.len();
    bytes.extend(b"heap");
    let entry = MemoryEntry { address: 0x7000_0005, bytes: stack..heap };
    let layout = Layout {
        memory: vec![entry.clone(), MemoryEntry { address: 0x9000, bytes: heap..heap + 4 }],
        threads: vec![ThreadEntry { id: 1, context: 0..1232, stack: entry }],
        modules: vec![ModuleEntry {
            base: 0x40_0000,
            size: 0x10_0000,
            name: 0..0,
            codeview: 0..0,
            debug_file: 0..0,
            build_id: 0..0,
        }],
        ..Layout::default()
    };
    let before = bytes.clone();
    let mut receipt = Receipt::default();
    reduce(
        &mut Editor::new(&mut bytes, &mut receipt),
        &layout,
        Cpu::new(9).unwrap(),
        Level::Pointers,
        Level::Drop,
    );
    assert_eq!(receipt.discrepancy(&before, &bytes), None);
    let words: Vec<u64> = bytes[stack + 3..heap - 4]
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(
        words,
        [0, 0, 0x40_1000, FILL, 0x7000_0010, 4096, (-4096i64).cast_unsigned(), FILL, 0x50_0000, FILL]
    );
    assert_eq!((&bytes[stack..stack + 3], &bytes[heap - 4..]), (&[0; 3][..], &[0; 8][..]));
}

/// What is left of 32-bit words on a stack at 0xbf00_0000: one module at 0x6161_0000 (in letters), the code at 0x6161_4142
/// follows a call in the dump.
fn reduced_32(words: &[u32], frame_pointer: u32) -> Vec<u32> {
    let mut bytes = vec![0; 716];
    bytes[180..184].copy_from_slice(&frame_pointer.to_le_bytes());
    bytes[196..200].copy_from_slice(&0xbf00_0000_u32.to_le_bytes());
    let stack = bytes.len();
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    let code = bytes.len();
    bytes.extend([0x90, 0xe8, 1, 2, 3, 4]);
    let entry = MemoryEntry { address: 0xbf00_0000, bytes: stack..code };
    let module = ModuleEntry {
        base: 0x6161_0000,
        size: 0x1_0000,
        name: 0..0,
        codeview: 0..0,
        debug_file: 0..0,
        build_id: 0..0,
    };
    let layout = Layout {
        memory: vec![entry.clone(), MemoryEntry { address: 0x6161_413c, bytes: code..code + 6 }],
        threads: vec![ThreadEntry { id: 1, context: 0..716, stack: entry }],
        modules: vec![module],
        ..Layout::default()
    };
    let before = bytes.clone();
    let mut receipt = Receipt::default();
    let cpu = Cpu::new(0).unwrap();
    reduce(&mut Editor::new(&mut bytes, &mut receipt), &layout, cpu, Level::Pointers, Level::Drop);
    assert_eq!(receipt.discrepancy(&before, &bytes), None);
    bytes[stack..code].as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
}

#[test]
fn on_32_bit_a_printable_word_must_be_proven() {
    let text = u32::from_le_bytes(*b"abaa");
    for (what, words, frame_pointer, expected) in [
        ("no pointer", vec![0x1234_5678, 0x6162_6364], 0, vec![0, 0]),
        ("text that looks like a pointer", vec![text, 0x6161_4142], 0, vec![0, 0x6161_4142]),
        ("a plain pointer", vec![0x6161_0102, 0xbf00_0004], 0, vec![0x6161_0102, 0xbf00_0004]),
        ("small integers", vec![0x61, 0xffff_ffff, 4096, 4097], 0, vec![0x61, 0xffff_ffff, 4096, 0]),
        ("UTF-32", vec![0x61, 0x62, 0x63, 0x64, 0x65, 7], 0, vec![0, 0, 0, 0, 0, 7]),
        ("three characters", vec![0x61, 0x62, 0x63, 7, 0x61], 0, vec![0x61, 0x62, 0x63, 7, 0x61]),
        (
            "mostly text",
            vec![0x6161_0102, u32::from_le_bytes([b'b', 1, 0x61, 0x61])],
            0,
            vec![0x6161_0102, 0],
        ),
        (
            "halves of four",
            vec![0x6161_0102, u32::from_le_bytes([b'b', b'c', 0x61, 0x61])],
            0,
            vec![0x6161_0102, 0],
        ),
        // Frame pointer, return address, twice; the second one's text leads nowhere.
        (
            "frame pointers",
            vec![0xbf00_0008, text, 0, text, text],
            0xbf00_0000,
            vec![0xbf00_0008, text, 0, text, 0],
        ),
    ] {
        assert_eq!(reduced_32(&words, frame_pointer), expected, "{what}");
    }
}

#[test]
fn no_text_survives_on_32_bit_at_any_phase() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..2000 {
        let text: Vec<u8> = (0..16).map(|_| b'a' + (next() % 3) as u8).collect();
        let stride = [1, 2, 4][round % 3];
        for phase in 0..4 {
            let mut bytes = vec![0xfe; phase];
            text.iter().for_each(|&byte| {
                bytes.push(byte);
                bytes.extend(vec![0; stride - 1]);
            });
            bytes.resize(bytes.len().next_multiple_of(4), 0xfe);
            let words: Vec<u32> = bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
            let left: Vec<u8> = reduced_32(&words, 0).into_iter().flat_map(u32::to_le_bytes).collect();
            let characters: Vec<u8> = left[phase..].iter().step_by(stride).take(16).copied().collect();
            let run = characters.windows(4).find(|run| run.iter().all(u8::is_ascii_lowercase));
            assert_eq!(run, None, "{} at {phase}, {stride} bytes each", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn the_rest_of_a_word_that_is_zero_in_part_is_zeroed() {
    let (before, targets) = (vec![7; 32], Addresses::default());
    let (mut bytes, mut receipt) = (before.clone(), Receipt::default());
    let mut editor = Editor::new(&mut bytes, &mut receipt);
    editor.zero(5..12, Place::Environment, "argv-envp");
    let words = Words { fills: true, ..Words::plain(&targets) };
    let changed = editor.changed();
    words.reduce(&mut editor, 0..32, 0x7000_0000, 0, Place::Stack, &changed);
    assert_eq!(receipt.discrepancy(&before, &bytes), None);
    assert_eq!(bytes, [[0; 16], [WORD_FILL; 16]].as_flattened());
}

/// Were each region compared with every change, or each thread with every region, this would take minutes.
#[test]
fn many_regions_and_threads_take_time_in_proportion() {
    const REGIONS: usize = 60_000;
    for (processor, context, width) in [(9, 1232, 8), (0, 716, 4)] {
        let mut bytes = vec![0; context];
        let stack = MemoryEntry { address: 0x7000_0000, bytes: context..context + 64 };
        // One word changes, one does not, so that no two changes are one.
        bytes.extend((0..64 / width).flat_map(|at| [(at % 2 * 0x7f) as u8; 8].into_iter().take(width)));
        let mut memory = vec![stack.clone()];
        for at in 0..REGIONS {
            let start = bytes.len();
            bytes.extend([[0x7f; 8], [0; 8]].as_flattened());
            memory.push(MemoryEntry { address: 0x9000_0000 + at as u64 * 64, bytes: start..start + 16 });
        }
        let thread = |id| ThreadEntry { id, context: 0..context, stack: stack.clone() };
        let threads = (0..REGIONS as u32).map(thread).collect();
        let layout = Layout { memory, threads, processor, ..Layout::default() };
        let (before, mut receipt) = (bytes.clone(), Receipt::default());
        let cpu = Cpu::new(processor).unwrap();
        reduce(&mut Editor::new(&mut bytes, &mut receipt), &layout, cpu, Level::Pointers, Level::Pointers);
        assert_eq!(receipt.discrepancy(&before, &bytes), None);
        assert!(receipt.entries.len() > REGIONS);
        assert_eq!(bytes[context + 64..], vec![0; REGIONS * 16]);
    }
}

#[test]
fn of_threads_on_one_stack_the_lowest_counts() {
    let mut bytes = vec![0; 2 * 1232];
    for (context, pointer) in [(0, 0x7000_0018_u64), (1232, 0x7000_0008)] {
        bytes[context + 152..context + 160].copy_from_slice(&pointer.to_le_bytes());
    }
    bytes.extend([1_u64, 2, 3, 4].map(u64::to_le_bytes).as_flattened());
    let stack = MemoryEntry { address: 0x7000_0000, bytes: 2 * 1232..2 * 1232 + 32 };
    let thread = |id, context| ThreadEntry { id, context, stack: stack.clone() };
    let threads = vec![thread(1, 0..1232), thread(2, 1232..2 * 1232)];
    let layout = Layout { memory: vec![stack.clone()], threads, ..Layout::default() };
    let mut receipt = Receipt::default();
    let cpu = Cpu::new(9).unwrap();
    reduce(&mut Editor::new(&mut bytes, &mut receipt), &layout, cpu, Level::Pointers, Level::Keep);
    assert_eq!(bytes[2 * 1232..], *[0_u64, 2, 3, 4].map(u64::to_le_bytes).as_flattened());
}

#[test]
fn code_that_was_made_at_run_time_is_code() {
    let mut bytes = vec![0; 1232];
    bytes[152..160].copy_from_slice(&0x7000_0000_u64.to_le_bytes());
    let words = [0x9000_0010_u64, 0x9000_1010, SELECTORS, SELECTORS + 1];
    words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    let entry = MemoryEntry { address: 0x7000_0000, bytes: 1232..1264 };
    let layout = Layout {
        memory: vec![entry.clone()],
        threads: vec![ThreadEntry { id: 1, context: 0..1232, stack: entry }],
        // PAGE_EXECUTE_READ, PAGE_READWRITE.
        mapped: vec![(0x9000_0000..0x9000_1000, 0x20), (0x9000_1000..0x9000_2000, 4)],
        ..Layout::default()
    };
    let mut receipt = Receipt::default();
    let cpu = Cpu::new(9).unwrap();
    reduce(&mut Editor::new(&mut bytes, &mut receipt), &layout, cpu, Level::Pointers, Level::Drop);
    let left: Vec<u64> = bytes[1232..].as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    assert_eq!(left, [0x9000_0010, FILL, SELECTORS, FILL]);
}

#[test]
fn authentication_codes_are_stripped() {
    let targets = Addresses::new(std::iter::once(0x7f_1234_0000..0x7f_1235_0000));
    let words =
        Words { width: 8, targets: &targets, mask: (1 << 39) - 1, proven: HashSet::new(), fills: true };
    let needed = |value: u64| words.is_needed(value, &value.to_le_bytes(), 0);
    assert!(needed(0x7f_1234_0010) && needed(0x8f3a_807f_1234_0010));
    assert!(!needed(0x8f3a_807f_2234_0010));
    let text = 0x6162_637f_1234_6465;
    assert!(!needed(text), "text whose lower bits are an address");
    let proven = Words { proven: HashSet::from([8]), ..words };
    assert!(proven.is_needed(text, &text.to_le_bytes(), 8));
}
