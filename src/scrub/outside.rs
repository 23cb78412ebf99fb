//! What may travel beside a dump: attachments, the tail of a log, headers of an upload. Each is scrubbed before it is stored or
//! sent, or there is nothing of it.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::edit::{Addresses, Editor, Encoding, Finding};
use super::finder::{self, Edges};
use super::places::{self, DROPPED};
use super::receipt::{Place, Receipt};
use super::{Engine, Level};
use crate::error::{Error, Result};

/// The longest attachment or log tail, in bytes.
const LONGEST: usize = 64 << 20;
/// The longest header value (as servers commonly take them).
const LONGEST_HEADER: usize = 8 << 10;

impl Engine {
    /// Scrubs an attachment of any content in place, at the same length: text in any encoding, wherever it stands. What is
    /// compressed or encrypted hides its text from this; do not attach such files.
    ///
    /// # Errors
    /// [`Error::Limit`] beyond 64 MiB, [`Error::System`] if a rule panicked. The bytes are then all zero and nothing is in the
    /// receipt.
    pub fn attachment(&self, bytes: &mut [u8], receipt: &mut Receipt) -> Result<()> {
        self.outside(bytes, Place::Attachment, Edges::Whole, receipt)
    }

    /// Scrubs the last part of a log in place, at the same length: what its start cuts off goes as well, since half of a value
    /// is no longer known for one. Give it from the start if it is whole.
    ///
    /// # Errors
    /// As [`attachment`](Self::attachment).
    pub fn log_tail(&self, bytes: &mut [u8], receipt: &mut Receipt) -> Result<()> {
        self.outside(bytes, Place::LogTail, Edges::Cut { address: 0 }, receipt)
    }

    /// Scrubs the value of a header, or of a form's field, that goes with an upload. The length stays.
    ///
    /// # Errors
    /// As [`attachment`](Self::attachment), with a limit of 8 KiB. The value is then empty.
    pub fn header(&self, value: &mut String, receipt: &mut Receipt) -> Result<()> {
        let mut bytes = std::mem::take(value).into_bytes();
        if bytes.len() > LONGEST_HEADER {
            return Err(Error::Limit { what: "the length of a header's value", limit: LONGEST_HEADER });
        }
        self.outside(&mut bytes, Place::UploadHeader, Edges::Whole, receipt)?;
        // Half a character may be left where a rule ends inside one.
        *value = match String::from_utf8(bytes) {
            Ok(value) => value,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).replace(char::REPLACEMENT_CHARACTER, "*"),
        };
        Ok(())
    }

    fn outside(&self, bytes: &mut [u8], place: Place, edges: Edges, receipt: &mut Receipt) -> Result<()> {
        let mut local = Receipt::default();
        let result = if bytes.len() > LONGEST {
            Err(Error::Limit { what: "the length of an attachment", limit: LONGEST })
        } else {
            // Nothing that a panic leaves half done is looked at again.
            catch_unwind(AssertUnwindSafe(|| self.edit(bytes, place, edges, &mut local))).map_err(|_| {
                Error::System { call: "scrub", source: std::io::Error::other("a rule panicked") }
            })
        };
        match result {
            Ok(()) => {
                self.sign(receipt);
                receipt.entries.append(&mut local.entries);
                Ok(())
            }
            Err(error) => {
                bytes.fill(0);
                Err(error)
            }
        }
    }

    fn edit(&self, bytes: &mut [u8], place: Place, edges: Edges, receipt: &mut Receipt) {
        let mut aliases = self.aliases.lock();
        let mut editor = Editor::naming(bytes, receipt, &mut aliases);
        let (bytes, mut findings) = (editor.bytes(), Vec::new());
        match self.policy.level_of(place) {
            Level::Keep => self.known.find(bytes, &mut findings),
            Level::Pattern => {
                let (found, blocks) = finder::in_memory_with(bytes, edges, &self.known, None);
                findings = found;
                findings.extend(finder::echoes_in_memory(bytes, &blocks, &self.echoes));
            }
            Level::Pointers | Level::Drop => {
                findings.push(Finding { range: 0..bytes.len(), encoding: Encoding::Utf8, rule: DROPPED });
            }
        }
        places::blank(&mut editor, 0, places::coalesce(findings), place, None);
        editor.finish(&Addresses::default(), 8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scrub::Policy;
    use crate::scrub::aliases::in_order;

    fn engine() -> Engine {
        Engine::new(&Policy { known: vec!["wilhelmina".into()], ..Policy::default() }).unwrap()
    }

    #[test]
    fn an_attachment_keeps_its_length_and_loses_its_values() {
        let before = b"\x89PNG\x00\x00mail alice@example.com by Wilhelmina\x00\x01".to_vec();
        let (mut after, mut receipt) = (before.clone(), Receipt::default());
        engine().attachment(&mut after, &mut receipt).unwrap();
        assert_eq!(receipt.discrepancy(&before, &after), None);
        let text = in_order(&String::from_utf8_lossy(&after));
        assert!(text.contains("mail [email#1]******** by [#2]******"), "{text}");
        assert!(receipt.entries.iter().all(|entry| entry.place == Place::Attachment));
        assert_eq!(receipt.engine, crate::scrub::ENGINE);
    }

    #[test]
    fn a_log_tail_loses_what_its_start_cuts_off() {
        let mut tail = b"lice@example.com logged in\nlevel 3 loaded\n".to_vec();
        let mut receipt = Receipt::default();
        engine().log_tail(&mut tail, &mut receipt).unwrap();
        assert_eq!(
            in_order(std::str::from_utf8(&tail).unwrap()),
            "[email#1]******* logged in\nlevel 3 loaded\n"
        );
        assert_eq!(receipt.entries[0].place, Place::LogTail);
    }

    #[test]
    fn a_header_is_scrubbed_or_empty() {
        let mut receipt = Receipt::default();
        let mut value = "skyforge 1.2 by jürgen@example.org".to_owned();
        engine().header(&mut value, &mut receipt).unwrap();
        assert!(value.starts_with("skyforge 1.2 by ") && !value.contains("example.org"), "{value}");
        let mut long = "x".repeat(LONGEST_HEADER + 1);
        assert!(engine().header(&mut long, &mut receipt).is_err());
        assert_eq!(long, "");
    }

    #[test]
    fn levels_are_obeyed() {
        let with = |level| {
            let places = [(Place::Attachment, level)].into();
            let policy = Policy { known: vec!["wilhelmina".into()], places, ..Policy::default() };
            let mut bytes = b"wilhelmina, alice@example.com: hello".to_vec();
            Engine::new(&policy).unwrap().attachment(&mut bytes, &mut Receipt::default()).unwrap();
            in_order(std::str::from_utf8(&bytes).unwrap())
        };
        assert_eq!(with(Level::Keep), "[#1]******, alice@example.com: hello");
        assert_eq!(with(Level::Pattern), "[#1]******, [email#2]********: hello");
        assert_eq!(with(Level::Drop), "*".repeat(36));
    }
}
