//! What the tracer and a pmodule's process say to each other.
//!
//! An answer is cut into pieces, and counts from its last piece on: what a process sent before it died is not used.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::{Blanks, Edits, Event, Veto};
use crate::sys::fault::Fault;

/// Bytes of a piece of an answer, and of memory in one message: a socket's buffer takes some of them.
pub(super) const PIECE: usize = 32 << 10;
/// Bytes of an answer.
pub(super) const LONGEST_ANSWER: usize = 1 << 20;

const MORE: u8 = 1;
const LAST: u8 = 2;
const READ: u8 = 3;
const EVENT: u8 = 4;
/// A message of [`Fault`]s begins with this.
pub(super) const FAULT: u8 = 5;

/// From the pmodule's process.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// This event is next.
    Event(Event),
    /// It is about to die.
    Fault(Fault),
    /// A piece of an answer.
    Piece { bytes: &'a [u8], last: bool },
    /// It wants memory of the target.
    Read { address: u64, length: usize },
}

impl<'a> Said<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Option<Self> {
        match message.split_first()? {
            (&MORE, bytes) => Some(Self::Piece { bytes, last: false }),
            (&LAST, bytes) => Some(Self::Piece { bytes, last: true }),
            (&READ, rest) => {
                let (address, length) = rest.split_first_chunk()?;
                let length = u64::from_le_bytes(length.try_into().ok()?);
                let length = usize::try_from(length).ok().filter(|&length| length <= PIECE)?;
                Some(Self::Read { address: u64::from_le_bytes(*address), length })
            }
            (&EVENT, &[number]) => Event::ALL.get(usize::from(number)).copied().map(Self::Event),
            (&FAULT, rest) => Fault::parse(rest).map(Self::Fault),
            _ => None,
        }
    }
}

/// The message that names the event that is next.
pub(super) fn event(event: Event) -> [u8; 2] {
    [EVENT, event as u8]
}

/// The messages of an answer.
pub(super) fn pieces(answer: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    // An answer is never empty.
    let count = answer.len().div_ceil(PIECE);
    answer.chunks(PIECE).enumerate().map(move |(number, piece)| {
        let kind = if number + 1 == count { LAST } else { MORE };
        [&[kind], piece].concat()
    })
}

/// The message that asks for memory.
pub(super) fn read(address: u64, length: usize) -> Vec<u8> {
    [&[READ], &address.to_le_bytes()[..], &(length as u64).to_le_bytes()].concat()
}

/// To a pmodule's process that waits: the next event, whose subject lies in the descriptor beside its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// The dump.
    Scrub = 1,
    /// The report as JSON.
    Verdict = 2,
}

impl Phase {
    /// Its message, with the subject's length.
    pub(super) fn message(self, length: usize) -> Vec<u8> {
        [&[self as u8], &(length as u64).to_le_bytes()[..]].concat()
    }

    pub(super) fn parse(message: &[u8]) -> Option<(Self, usize)> {
        let (kind, length) = message.split_first()?;
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        match kind {
            1 => Some((Self::Scrub, length)),
            2 => Some((Self::Verdict, length)),
            _ => None,
        }
    }
}

/// What a pmodule's process answers at the end of a phase.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    /// The kernel has no filter for system calls.
    pub(super) unconfined: bool,
    pub(super) result: Answered,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Answered {
    Edits(Edits),
    Blanks(Blanks),
    Verdict(Option<Veto>),
    /// In its own words.
    Failed(String),
    /// No instance could be made: why. Nobody knows what it would have removed.
    NotMade(String),
    /// At `file:line`.
    Panicked(String),
    /// It has more than [`LONGEST_ANSWER`] bytes.
    TooLong,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_together_again() {
        for length in [1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let answer: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut together: Vec<u8> = Vec::new();
            let messages: Vec<_> = pieces(&answer).collect();
            for (i, message) in messages.iter().enumerate() {
                let Some(Said::Piece { bytes, last }) = Said::parse(message) else { panic!("{length}") };
                together.extend(bytes);
                assert_eq!(last, i + 1 == messages.len());
            }
            assert_eq!(together, answer);
        }
    }

    #[test]
    fn requests_are_bounded() {
        assert_eq!(Said::parse(&read(7, PIECE)), Some(Said::Read { address: 7, length: PIECE }));
        assert_eq!(Said::parse(&read(7, PIECE + 1)), None);
        for nonsense in [&b""[..], b"\0", b"nonsense", &[READ], &[READ, 1, 2, 3, 4, 5, 6, 7, 8, 9]] {
            assert_eq!(Said::parse(nonsense), None, "{nonsense:?}");
        }
        for phase in [Phase::Scrub, Phase::Verdict] {
            assert_eq!(Phase::parse(&phase.message(9)), Some((phase, 9)));
        }
        assert_eq!(Phase::parse(&[1, 2]), None);
        assert_eq!(Said::parse(&event(Event::Scrub)), Some(Said::Event(Event::Scrub)));
        assert_eq!(Said::parse(&[EVENT, 8]), None);
    }
}
