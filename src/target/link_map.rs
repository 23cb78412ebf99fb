//! The dynamic linker's own list of what it loaded.
//!
//! Layout: `struct r_debug` and `struct link_map` (`<link.h>`). It lies in memory that anybody in the process may have
//! written to, so it is no more than a second opinion on [`Target::modules`].
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::Target;
use super::elf::{self, DT_DEBUG};
use super::memory::length;

/// The most entries that are looked at.
const MOST: usize = 1 << 12;
/// The longest name that is read (PATH_MAX).
const LONGEST_NAME: usize = 4096;
/// Bytes of the public part of `struct link_map`: load bias, name, dynamic section, next, previous.
const ENTRY: usize = 40;

/// What the dynamic linker has loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Linked {
    /// In its order: the program, whose name is empty, then libraries.
    pub entries: Vec<LinkMap>,
    /// Why the list ends where it does, if that is not its end: it cannot be read, it leads back to itself, it is too long.
    pub note: Option<String>,
}

/// An entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkMap {
    /// Path, as the linker found it.
    pub name: String,
    /// What is added to the binary's own addresses; not where it begins if those do not begin at 0.
    pub bias: u64,
    /// Where its dynamic section is.
    pub dynamic: u64,
}

impl Target {
    /// The dynamic linker's list, through the program's DT_DEBUG. Empty, with a note, for a program without a linker. Each
    /// call follows it anew: a read for each entry and one for its name.
    pub fn link_map(&self) -> Linked {
        let mut linked = Linked::default();
        let mut seen = HashSet::new();
        let mut next = self.first_link();
        if next.is_none() {
            linked.note = Some("the program has no list of the dynamic linker".to_owned());
        }
        while let Some(at) = next.filter(|&at| at != 0) {
            let why = if !seen.insert(at) {
                "leads back to itself"
            } else if linked.entries.len() >= MOST {
                "is too long"
            } else {
                match self.memory().read_bytes(at, ENTRY).and_then(|entry| self.link(&entry)) {
                    Some((link, behind)) => {
                        linked.entries.push(link);
                        next = Some(behind);
                        continue;
                    }
                    None => "cannot be read",
                }
            };
            linked.note =
                Some(format!("the dynamic linker's list {why} behind {} entries", linked.entries.len()));
            break;
        }
        linked
    }

    /// `r_map`, behind the version of `struct r_debug`.
    fn first_link(&self) -> Option<u64> {
        let dynamic = self.modules.first()?.head.dynamic.clone()?;
        let bytes = self.memory().read(dynamic.start, length(&dynamic));
        let (_, debug) = elf::entries(&bytes).find(|(tag, _)| *tag == DT_DEBUG)?;
        self.memory().read_pointer(debug.checked_add(8)?).filter(|_| debug != 0)
    }

    fn link(&self, entry: &[u8]) -> Option<(LinkMap, u64)> {
        let word = |i: usize| entry.as_chunks().0.get(i).map(|word| u64::from_le_bytes(*word));
        let (bias, name, dynamic, next) = (word(0)?, word(1)?, word(2)?, word(3)?);
        let name = self.memory().read_string(name, LONGEST_NAME).unwrap_or_default();
        Some((LinkMap { name, bias, dynamic }, next))
    }
}

#[cfg(test)]
mod tests {
    use crate::target::tests::own;

    #[test]
    fn its_own_libraries() {
        let target = own();
        let linked = target.link_map();
        assert_eq!(linked.note, None);
        assert_eq!(linked.entries[0].name, "");
        let named = |name: &str| {
            target
                .modules
                .iter()
                .find(|m| m.path == name || m.path == std::fs::canonicalize(name).unwrap().to_str().unwrap())
        };
        let mut libraries = 0;
        for entry in linked.entries.iter().filter(|entry| entry.name.starts_with('/')) {
            let module = named(&entry.name).expect(&entry.name);
            assert_eq!(
                (module.range.start, module.head.dynamic.as_ref().unwrap().start),
                (entry.bias, entry.dynamic)
            );
            libraries += 1;
        }
        assert!(libraries > 1);
    }
}
