//! Where the strings that a dead process was started with lie: the kernel lays out the top of the first stack as count,
//! pointers to arguments, pointers to variables, auxiliary vector (System V ABI for x86-64, 3.4.1), and a core file has the
//! last of these in its notes, too.
#![forbid(unsafe_code)]

use std::ops::Range;

use super::super::{AT_RANDOM, StartUp, Target, find as find_mapping};

/// File name of the program: the last of the strings.
const AT_EXECFN: u64 = 31;
/// How far below the strings the pointers are looked for: 128 Ki of them.
const REACH: u64 = 1 << 20;

/// `None` if the vector is not found again, or what lies below it is no such layout.
pub(super) fn find(target: &Target) -> Option<StartUp> {
    let (random, last) = (target.auxv(AT_RANDOM)?, target.auxv(AT_EXECFN)?);
    let stack = find_mapping(&target.maps, random)?.range.clone();
    let start = stack.start.max(random.saturating_sub(REACH)).checked_next_multiple_of(8)?;
    let bytes = target.memory().read(start, usize::try_from(random.checked_sub(start)?).ok()?);
    let vector = memchr::memmem::rfind(&bytes, &target.auxv)?;
    let words: Vec<u64> =
        bytes.get(..vector)?.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    strings(&words, random..last.min(stack.end))
}

/// From the words below the vector: the strings, which lie in `place`.
fn strings(words: &[u64], place: Range<u64>) -> Option<StartUp> {
    let (&end, below) = words.split_last()?;
    let variables = below.iter().rev().take_while(|&&word| word != 0).count();
    let (&separator, below) = below.get(..below.len() - variables)?.split_last()?;
    // Arguments cannot be told from their count but by being that many.
    let arguments = (0..below.len()).find(|&n| below[below.len() - 1 - n] == n as u64)?;
    let first = |n: usize, below: &[u64]| below.get(below.len() - n).copied();
    let arguments_start = first(arguments.max(1), below)?;
    let variables_start =
        words.get(words.len() - 1 - variables).copied().filter(|_| variables > 0).unwrap_or(place.end);
    let inside =
        place.start <= arguments_start && arguments_start <= variables_start && variables_start <= place.end;
    (end == 0 && separator == 0 && arguments > 0 && inside).then_some(StartUp {
        arguments: arguments_start..variables_start,
        environment: variables_start..place.end,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts() {
        let place = 0x7000..0x8000;
        let found = |words: &[u64]| {
            strings(words, place.clone())
                .map(|s| (s.arguments.start, s.arguments.end, s.environment.start, s.environment.end))
        };
        let two = [9, 9, 2, 0x7010, 0x7020, 0, 0x7030, 0x7040, 0];
        assert_eq!(found(&two), Some((0x7010, 0x7030, 0x7030, 0x8000)));
        assert_eq!(found(&two[2..]), Some((0x7010, 0x7030, 0x7030, 0x8000)));
        assert_eq!(found(&[1, 0x7010, 0, 0]), Some((0x7010, 0x8000, 0x8000, 0x8000)), "no variables");
        assert_eq!(found(&[0, 0, 0x7030, 0]), None, "no arguments");
        assert_eq!(found(&[7, 0x7010, 0, 0x7030, 0]), None, "a wrong count");
        assert_eq!(found(&[1, 0x7030, 0, 0x7010, 0]), None, "in a wrong order");
        assert_eq!(found(&[1, 0x6fff, 0, 0x7010, 0]), None, "elsewhere");
        assert_eq!(found(&[1, 0x7010, 0, 0x7030, 5]), None, "no end");
        for length in 0..two.len() {
            found(&two[..length]);
        }
    }
}
