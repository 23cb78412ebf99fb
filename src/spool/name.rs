//! A report's file name: its id and its retry schedule. The directory it lies in is its state.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::report::ReportId;

/// `<id>-<attempts>-<not before>-<delivered>.ceno`: decimal attempts, decimal milliseconds since the Unix epoch,
/// lower-case hexadecimal mask. There is one way to write each name, so two files cannot claim to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name {
    pub(super) id: ReportId,
    pub(super) attempts: u32,
    pub(super) not_before_ms: u64,
    pub(super) delivered: u32,
}

impl Name {
    /// The name of a report that was not tried yet.
    pub(super) fn new(id: ReportId) -> Self {
        Self { id, attempts: 0, not_before_ms: 0, delivered: 0 }
    }

    /// When the report is to be tried. Nobody asks for a wait of more than [`MAX_WAIT_MS`]: then the clock was set
    /// back since, and the report is due now.
    pub(super) fn due_ms(&self, now_ms: u64) -> u64 {
        if self.not_before_ms > now_ms.saturating_add(MAX_WAIT_MS) { now_ms } else { self.not_before_ms }
    }
}

/// Two days: twice the longest wait that a server may ask for.
pub(super) const MAX_WAIT_MS: u64 = 2 * 24 * 60 * 60 * 1000;

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}-{:x}.ceno", self.id, self.attempts, self.not_before_ms, self.delivered)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parse = || -> Option<Self> {
            let (id, rest) = text.strip_suffix(".ceno")?.split_at_checked(36)?;
            let mut fields = rest.strip_prefix('-')?.split('-');
            let name = Self {
                id: id.parse().ok()?,
                attempts: fields.next()?.parse().ok()?,
                not_before_ms: fields.next()?.parse().ok()?,
                delivered: u32::from_str_radix(fields.next()?, 16).ok()?,
            };
            (fields.next().is_none() && name.to_string() == text).then_some(name)
        };
        parse().ok_or_else(|| {
            Error::malformed("report file name", "expected ID-ATTEMPTS-NOTBEFORE-DELIVERED.ceno")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01020304-0506-4708-890a-0b0c0d0e0f10";

    #[test]
    fn names_have_one_form() {
        let id: ReportId = ID.parse().unwrap();
        let cases = [
            (Name::new(id), format!("{ID}-0-0-0.ceno")),
            (
                Name { id, attempts: 3, not_before_ms: 1_700_000_000_123, delivered: 0x1f },
                format!("{ID}-3-1700000000123-1f.ceno"),
            ),
            (
                Name { id, attempts: u32::MAX, not_before_ms: u64::MAX, delivered: u32::MAX },
                format!("{ID}-4294967295-18446744073709551615-ffffffff.ceno"),
            ),
        ];
        for (name, text) in cases {
            assert_eq!(name.to_string(), text);
            assert_eq!(text.parse::<Name>().unwrap(), name);
        }
    }

    #[test]
    fn other_names_are_not_reports() {
        let other = ["", ".ceno", ID, "key", "lock", "Ä-0-0-0.ceno"].map(str::to_owned).into_iter().chain(
            [
                ".ceno",
                "-0-0.ceno",
                "-0-0-0",
                "-0-0-0.tmp",
                "-0-0-0.ceno~",
                "-0-0-0-0.ceno",
                "-00-0-0.ceno",
                "-+1-0-0.ceno",
                "-0-00-0.ceno",
                "-0-0-00.ceno",
                "-0-0-1F.ceno",
                "-0-0-0x1.ceno",
                "-0-0-.ceno",
                "--1-0-0.ceno",
                "0-0-0-0.ceno",
                "-4294967296-0-0.ceno",
                "-0-18446744073709551616-0.ceno",
                "-0-0-100000000.ceno",
                "-0-0-0.CENO",
                "-0-0-\u{e9}.ceno",
            ]
            .map(|rest| format!("{ID}{rest}")),
        );
        for text in other {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
        assert!(format!(" {ID}-0-0-0.ceno").parse::<Name>().is_err());
        assert!(format!("../{ID}-0-0-0.ceno").parse::<Name>().is_err());
    }

    #[test]
    fn a_clock_set_back_does_not_hold_reports_for_ever() {
        let at = |not_before_ms| Name { not_before_ms, ..Name::new(ReportId([0; 16])) };
        for (not_before, now, due) in [
            (0, 5, 0),
            (10, 5, 10),
            (5 + MAX_WAIT_MS, 5, 5 + MAX_WAIT_MS),
            (6 + MAX_WAIT_MS, 5, 5),
            (u64::MAX, u64::MAX, u64::MAX),
        ] {
            assert_eq!(at(not_before).due_ms(now), due);
        }
    }
}
