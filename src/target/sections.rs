//! Sections of a module.
#![forbid(unsafe_code)]

use super::elf::{self, DT_STRSZ, DT_STRTAB};
use super::memory::length;
use super::{Target, binary_file};

/// A named part of a binary in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// `.text`, `.data`.
    pub name: String,
    /// Where it is in the process.
    pub address: u64,
    /// Its length in bytes.
    pub size: u64,
}

impl Target {
    /// The sections of a module, by its index, that lie in memory. The section headers are not loaded, so they are read
    /// from the file that was mapped, if it is still the binary with that build id; each call reads it. Where there is no
    /// such file, or it may not be opened, only those are listed that the program headers and the dynamic section tell of:
    /// `.dynamic`, `.dynstr`, `.eh_frame_hdr`.
    pub fn sections(&self, module: usize) -> Vec<Section> {
        let Some(module) = self.modules.get(module) else { return Vec::new() };
        let of_file = (!module.build_id.is_empty())
            .then(|| binary_file::sections(&module.path, &module.build_id))
            .flatten()
            .map(|sections| {
                let moved = |(name, own, size): (String, u64, u64)| Section {
                    name,
                    address: own.wrapping_add(module.head.bias),
                    size,
                };
                sections.into_iter().map(moved).collect::<Vec<_>>()
            });
        if let Some(sections) = of_file {
            return sections;
        }
        let head = &module.head;
        let dynamic = head.dynamic.clone().unwrap_or(0..0);
        let bytes = self.memory().read(dynamic.start, length(&dynamic));
        let value = |wanted| elf::entries(&bytes).find(|(tag, _)| *tag == wanted).map(|(_, value)| value);
        let names = value(DT_STRTAB).zip(value(DT_STRSZ)).and_then(|(at, size)| {
            let at = if module.range.contains(&at) { at } else { at.wrapping_add(head.bias) };
            let end = at.checked_add(size)?;
            (module.range.start <= at && end <= module.range.end).then_some(at..end)
        });
        let others = [
            (".eh_frame_hdr", head.unwind.as_ref().map(|(index, _)| index.clone())),
            (".dynamic", head.dynamic.clone()),
            (".dynstr", names),
        ];
        let others = others.into_iter().filter_map(|(name, range)| Some((name, range?)));
        let section = |(name, range): (&str, std::ops::Range<u64>)| Section {
            name: name.to_owned(),
            address: range.start,
            size: range.end - range.start,
        };
        others.map(section).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::tests::own;

    #[test]
    fn with_and_without_the_file() {
        let mut target = own();
        let with = target.sections(0);
        let find =
            |sections: &[Section], name: &str| sections.iter().find(|section| section.name == name).cloned();
        // This function lies in the text, a constant in the read-only data.
        let text = find(&with, ".text").unwrap();
        let here = Target::sections as fn(&Target, usize) -> Vec<Section> as usize as u64;
        assert!(text.address <= here && here < text.address + text.size);
        assert!(find(&with, ".symtab").is_none(), "it is not loaded");
        target.modules[0].path = "/nonexistent".to_owned();
        let without = target.sections(0);
        for name in [".dynamic", ".dynstr", ".eh_frame_hdr"] {
            assert_eq!(find(&without, name).expect(name), find(&with, name).unwrap(), "{name}");
        }
        assert_eq!(target.sections(usize::MAX), []);
    }
}
