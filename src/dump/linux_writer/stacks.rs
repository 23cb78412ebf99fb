//! Which part of each stack is kept.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::target::{Mapping, find};

/// Bytes below the stack pointer that a leaf function may use (System V ABI for x86-64, 3.2.2).
const RED_ZONE: u64 = 128;
/// Of a live stack longer than two of these, such as one that overflowed, the part at the stack pointer and the part at
/// its outer end are kept, so many bytes of each.
pub const END: u64 = 64 << 10;
/// A stack pointer may have run past the end of its stack by so much: the kernel's guard gap, 256 pages.
const GUARD: u64 = 1 << 20;
/// What threads that did not crash keep at their stack pointers when room gets short, step by step.
const STEPS: [u64; 4] = [16 << 10, 4 << 10, 1 << 10, 0];

/// Bytes that are kept behind the last return address: readers want the caller's stack pointer to be inside.
const BEHIND_LAST: usize = 64;

/// What is kept of a stack, as addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Stack {
    /// From the stack pointer on.
    pub(super) near: Range<u64>,
    /// The outer end, if `near` does not reach it. Else empty.
    pub(super) far: Range<u64>,
}

impl Stack {
    fn len(&self) -> u64 {
        (self.near.end - self.near.start) + (self.far.end - self.far.start)
    }
}

/// The stacks of `threads`: stack pointers, and where their control blocks are. `ceiling` is where the program's arguments
/// begin. Nothing that lies behind these, in the same mapping, belongs to a frame.
pub(super) fn of(
    threads: &[(Option<u64>, Option<u64>)],
    maps: &[Mapping],
    ceiling: Option<u64>,
) -> Vec<Stack> {
    let live = |&(pointer, block): &(Option<u64>, Option<u64>)| {
        pointer.map_or(0..0, |pointer| live(pointer, maps, [ceiling, block]))
    };
    let mut live: Vec<Range<u64>> = threads.iter().map(live).collect();
    // Stacks that share a mapping (coroutines, no guard between): each ends where the next one begins.
    let mut order: Vec<usize> = (0..live.len()).filter(|&i| !live[i].is_empty()).collect();
    order.sort_by_key(|&i| live[i].start);
    for pair in order.windows(2) {
        let next = live[pair[1]].start;
        live[pair[0]].end = live[pair[0]].end.min(next);
    }
    live.into_iter().map(ends).collect()
}

/// From the red zone to the end of the mapping, or to the first of `ends` in it that lies above.
fn live(pointer: u64, maps: &[Mapping], ends: [Option<u64>; 2]) -> Range<u64> {
    let mapping = match find(maps, pointer).filter(|mapping| mapping.is_memory()) {
        Some(mapping) => mapping,
        // It overflowed: the stack begins above.
        None => {
            let above = |mapping: &&Mapping| {
                mapping.range.start > pointer && mapping.range.start - pointer <= GUARD && mapping.is_memory()
            };
            let Some(mapping) = maps.iter().find(above) else { return 0..0 };
            mapping
        }
    };
    let start = (pointer.saturating_sub(RED_ZONE) & !0xf).max(mapping.range.start);
    let inside = |end: &u64| *end > pointer && mapping.range.contains(end);
    let end = ends.into_iter().flatten().filter(inside).min().unwrap_or(mapping.range.end);
    start..end
}

fn ends(live: Range<u64>) -> Stack {
    if live.end - live.start <= 2 * END {
        return Stack { near: live, far: 0..0 };
    }
    Stack { near: live.start..live.start + END, far: live.end - END..live.end }
}

/// Makes the stacks fit `room` bytes in all. In this order goes: the far ends of all threads but the crashing one, what its
/// fellows have behind their first 16, 4, 1 KiB, all they have, and last the far end of the crashing thread's. Its near end
/// stays. Returns what was done, for people.
pub(super) fn fit(stacks: &mut [Stack], crashed: Option<usize>, room: u64) -> Option<String> {
    let total = |stacks: &[Stack]| stacks.iter().fold(0, |sum: u64, stack| sum.saturating_add(stack.len()));
    if total(stacks) <= room {
        return None;
    }
    let others = |stacks: &mut [Stack], change: &dyn Fn(&mut Stack)| {
        let others = stacks.iter_mut().enumerate().filter(|(i, _)| Some(*i) != crashed);
        others.for_each(|(_, stack)| change(stack));
    };
    others(stacks, &|stack| stack.far = 0..0);
    let mut most = 2 * END;
    for step in STEPS {
        if total(stacks) <= room {
            break;
        }
        most = step;
        others(stacks, &|stack| {
            stack.near.end = stack.near.end.min(stack.near.start.saturating_add(step));
        });
    }
    if total(stacks) > room
        && let Some(stack) = crashed.and_then(|crashed| stacks.get_mut(crashed))
    {
        stack.far = 0..0;
    }
    Some(format!("stacks of threads that did not crash were cut to {most} bytes: the dump's limit"))
}

/// How much of a stack, from its start, may belong to frames: no frame lies behind the last word that points into `code`
/// (ascending), as each has a return address. What glibc puts there, thread-local variables and room for those of
/// libraries to be loaded, is two KiB for each thread. All of it if no word does.
pub(super) fn frames_end(stack: &[u8], code: &[Range<u64>]) -> usize {
    let (words, _) = stack.as_chunks::<8>();
    let bounds = code.first().map_or(0, |range| range.start)..code.last().map_or(0, |range| range.end);
    let is_code = |word: u64| {
        // A return address may be the first byte behind its function's code.
        let word = word.wrapping_sub(1);
        let before = code.partition_point(|range| range.start <= word);
        bounds.contains(&word) && before.checked_sub(1).is_some_and(|at| code[at].contains(&word))
    };
    let last = words.iter().rposition(|word| is_code(u64::from_le_bytes(*word)));
    last.map_or(stack.len(), |last| ((last + 1) * 8 + BEHIND_LAST).min(stack.len()))
}

/// As [`frames_end`], but only zeros are taken off: the kernel leaves up to 8 KiB of them between the frames of the first
/// thread and its arguments.
pub(super) fn without_zeros(stack: &[u8]) -> usize {
    let used = stack.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    used.next_multiple_of(8).saturating_add(BEHIND_LAST).min(stack.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(range: Range<u64>, readable: bool) -> Mapping {
        let (writable, executable, private, offset) = (readable, false, true, 0);
        Mapping { range, readable, writable, executable, private, offset, file: None, name: String::new() }
    }

    #[test]
    fn what_is_live() {
        const MIB: u64 = 1 << 20;
        let maps = [
            map(0x1_0000..0x1_1000, false),
            map(0x1_1000..0x2_0000, true),
            map(0x10_0000..0x10_0000 + 8 * MIB, true),
            map(0x200_0000..0x200_1000, true),
        ];
        let top = 0x10_0000 + 8 * MIB;
        let cases = [
            ("in the middle", 0x1_8008, None, (0x1_7f80, 0x2_0000), (0, 0)),
            ("at the bottom", 0x1_1010, None, (0x1_1000, 0x2_0000), (0, 0)),
            ("overflowed into the guard", 0x1_0ff8, None, (0x1_1000, 0x2_0000), (0, 0)),
            ("overflowed, nothing mapped below", 0x1_0000 - 8, None, (0x1_1000, 0x2_0000), (0, 0)),
            ("nowhere", 0x5000_0000, None, (0, 0), (0, 0)),
            ("null", 0, None, (0x1_1000, 0x2_0000), (0, 0)),
            ("garbage", u64::MAX, None, (0, 0), (0, 0)),
            ("arguments above", 0x1_8000, Some(0x1_9000), (0x1_7f80, 0x1_9000), (0, 0)),
            ("another's arguments", 0x1_8000, Some(0x200_0800), (0x1_7f80, 0x2_0000), (0, 0)),
            ("below all frames, where none can be", 0x1_8000, Some(0x1_2000), (0x1_7f80, 0x2_0000), (0, 0)),
            ("two ends", 0x10_0100, None, (0x10_0080, 0x11_0080), (top - END, top)),
        ];
        for (what, pointer, ceiling, near, far) in cases {
            let stack = of(&[(Some(pointer), None)], &maps, ceiling).remove(0);
            assert_eq!(
                of(&[(Some(pointer), ceiling)], &maps, None).remove(0),
                stack,
                "{what}: as a control block"
            );
            assert_eq!(
                ((stack.near.start, stack.near.end), (stack.far.start, stack.far.end)),
                (near, far),
                "{what}"
            );
        }
        // Two threads in one mapping, in any order.
        let shared = of(&[(Some(0x1_9000), None), (None, None), (Some(0x1_8000), None)], &maps, None);
        assert_eq!(shared[0].near, 0x1_8f80..0x2_0000);
        assert_eq!(shared[1], Stack::default());
        assert_eq!(shared[2].near, 0x1_7f80..0x1_8f80);
    }

    #[test]
    fn where_frames_end() {
        let code = [0x1000..0x2000, 0x8000..0x9000];
        let stack = |words: &[u64]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let cases: [(&[u64], usize); 7] = [
            (&[0x1001, 0, 0, 0], 8 + BEHIND_LAST),
            (&[0x1001, 0, 0x9000, 0x9001], 24 + BEHIND_LAST),
            (&[0x1001, 0x1000, 0x5000, u64::MAX], 8 + BEHIND_LAST),
            (&[0, 0, 0, 0x8100], 32 + BEHIND_LAST),
            (&[0x5000, 0, 1], usize::MAX),
            (&[0, 0, 0], usize::MAX),
            (&[], usize::MAX),
        ];
        for (words, expected) in cases {
            let mut long = stack(words);
            long.resize(long.len() + 100, 0);
            assert_eq!(frames_end(&long, &code), expected.min(long.len()), "{words:x?}");
            assert_eq!(frames_end(&stack(words), &code), expected.min(words.len() * 8), "{words:x?}");
            assert_eq!(frames_end(&long, &[]), long.len());
        }
        assert_eq!(without_zeros(&[1; 100]), 100);
        assert_eq!(without_zeros(&[&[0, 1][..], &[0; 200]].concat()), 8 + BEHIND_LAST);
        assert_eq!(without_zeros(&[0; 200]), BEHIND_LAST);
    }

    #[test]
    fn what_goes_first() {
        let all = || vec![ends(0..1 << 23), ends(1 << 24..1 << 25), ends(1 << 26..(1 << 26) + 20_000)];
        let near = |stack: &Stack| stack.near.end - stack.near.start;
        let cases: [(u64, [u64; 3], bool); 6] = [
            (u64::MAX, [END, END, 20_000], true),
            (2 * END + END + 20_000, [END, END, 20_000], true),
            (2 * END + 33_000, [END, 16 << 10, 16 << 10], true),
            (2 * END + 8_192, [END, 4096, 4096], true),
            (2 * END, [END, 0, 0], true),
            (0, [END, 0, 0], false),
        ];
        for (room, expected, far) in cases {
            let mut stacks = all();
            let note = fit(&mut stacks, Some(0), room);
            assert_eq!(stacks.iter().map(near).collect::<Vec<_>>(), expected, "{room}");
            assert_eq!((!stacks[0].far.is_empty(), note.is_some()), (far, room != u64::MAX), "{room}");
        }
    }
}
