//! Crashpad's stream of annotations, by which collectors of that kind show an application's attributes.
//!
//! Format: `MinidumpCrashpadInfo` in Crashpad's `minidump/minidump_extensions.h`, version 1: report id, client id (zero
//! here: it would name a device), a dictionary of UTF-8 strings, and a list of modules (none here).
#![forbid(unsafe_code)]

use minidump_common::format::{
    GUID, MINIDUMP_CRASHPAD_INFO, MINIDUMP_DIRECTORY, MINIDUMP_LOCATION_DESCRIPTOR,
    MINIDUMP_SIMPLE_STRING_DICTIONARY_ENTRY,
};

use super::builder::{list, location, push, size};
use super::indirect::{enter, grown};
use super::layout::{Layout, kind};
use crate::error::Result;

/// Appends a stream that holds `annotations` (name, value) and the report's id. They are taken as they are, so they go
/// into a dump that is scrubbed already only if they are, too. A dump that has such a stream stays as it is.
///
/// # Errors
/// [`Error::Malformed`](crate::Error::Malformed) if `layout` is not that of `dump`, [`Error::Limit`](crate::Error::Limit)
/// if the result would not fit 32-bit offsets. The dump is then as it was.
pub fn append(
    dump: &mut Vec<u8>,
    layout: &Layout,
    report: [u8; 16],
    annotations: &[(&str, &str)],
) -> Result<()> {
    if layout.streams.iter().any(|stream| stream.kind == kind::CRASHPAD_INFO) {
        return Ok(());
    }
    let texts: usize = annotations.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let room = texts.saturating_add(256 + layout.streams.len() * size::<MINIDUMP_DIRECTORY>());
    let length = dump.len();
    *dump = grown(std::mem::take(dump), room);
    let written = write(dump, layout, report, annotations);
    if written.is_err() {
        dump.truncate(length);
    }
    written
}

fn write(out: &mut Vec<u8>, layout: &Layout, report: [u8; 16], annotations: &[(&str, &str)]) -> Result<()> {
    let mut entries = Vec::with_capacity(annotations.len());
    for (name, value) in annotations {
        let (key, value) = (text(out, name)?, text(out, value)?);
        entries.push(MINIDUMP_SIMPLE_STRING_DICTIONARY_ENTRY { key, value });
    }
    let entries = list(entries)?;
    let simple_annotations = location(out.len(), entries.len())?;
    out.extend_from_slice(&entries);
    let stream = location(out.len(), size::<MINIDUMP_CRASHPAD_INFO>())?;
    let info = MINIDUMP_CRASHPAD_INFO {
        version: MINIDUMP_CRASHPAD_INFO::VERSION,
        report_id: guid(report),
        client_id: guid([0; 16]),
        simple_annotations,
        module_list: MINIDUMP_LOCATION_DESCRIPTOR::default(),
    };
    push(out, info)?;
    enter(out, layout, MINIDUMP_DIRECTORY { stream_type: kind::CRASHPAD_INFO, location: stream })
}

/// MinidumpUTF8String: length in bytes, text, a zero byte.
fn text(out: &mut Vec<u8>, text: &str) -> Result<u32> {
    let rva = location(out.len(), text.len())?;
    out.extend_from_slice(&rva.data_size.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(rva.rva)
}

/// The first three parts are numbers, which the dump has in its own byte order.
fn guid([a, b, c, d, e, f, g, h, data4 @ ..]: [u8; 16]) -> GUID {
    GUID {
        data1: u32::from_be_bytes([a, b, c, d]),
        data2: u16::from_be_bytes([e, f]),
        data3: u16::from_be_bytes([g, h]),
        data4,
    }
}

#[cfg(test)]
mod tests {
    use minidump::{Minidump, MinidumpCrashpadInfo};

    use super::*;
    use crate::dump::builder::Builder;

    const ID: [u8; 16] = [1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16];

    /// A dump of one stream, with room for as many more.
    fn dump(more: usize) -> Vec<u8> {
        let mut out = Builder::new(1 + more);
        let bytes = out.bytes(b"10-20 r--p 0 0 0 /a\n").unwrap();
        out.stream(kind::LINUX_MAPS, bytes);
        out.finish(7).unwrap()
    }

    #[test]
    fn readers_see_it() {
        let annotations = [("level", "castle"), ("caf\u{e9}", "na\u{ef}ve \u{1f600}"), ("empty", "")];
        for more in [0, 1, 3] {
            let dump = dump(more);
            let before = Layout::parse(&dump).unwrap();
            let mut dump = dump;
            append(&mut dump, &before, ID, &annotations).unwrap();
            let oracle = Minidump::read(&dump[..]).unwrap();
            let info = oracle.get_stream::<MinidumpCrashpadInfo>().unwrap();
            assert_eq!(info.raw.report_id.to_string(), "01020304-0506-4708-890a-0b0c0d0e0f10");
            assert_eq!(info.raw.client_id.to_string(), "00000000-0000-0000-0000-000000000000");
            assert_eq!(info.simple_annotations.len(), 3);
            for (name, value) in annotations {
                assert_eq!(info.simple_annotations[name], value);
            }
            assert_eq!(oracle.get_raw_stream(kind::LINUX_MAPS).unwrap(), b"10-20 r--p 0 0 0 /a\n");
            let layout = Layout::parse(&dump).unwrap();
            let texts: Vec<_> = layout
                .annotations
                .iter()
                .map(|range| std::str::from_utf8(&dump[range.clone()]).unwrap())
                .collect();
            assert_eq!(
                texts,
                annotations
                    .iter()
                    .flat_map(|(name, value)| [*name, *value])
                    .filter(|t| !t.is_empty())
                    .collect::<Vec<_>>()
            );
            let kept = layout.gaps.iter().all(|gap| dump[gap.clone()].iter().all(|&byte| byte == 0));
            assert!(kept, "all else is claimed: {:?}", layout.gaps);
            let mut again = dump.clone();
            append(&mut again, &layout, ID, &[("x", "y")]).unwrap();
            assert_eq!(again, dump, "not twice");
        }
    }

    #[test]
    fn damaged_ones_are_refused_or_read_without_panic() {
        let dump = dump(1);
        let layout = Layout::parse(&dump).unwrap();
        let mut whole = dump.clone();
        append(&mut whole, &layout, ID, &[("level", "castle"), ("b", "c")]).unwrap();
        for at in dump.len()..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                if let Ok(layout) = Layout::parse(&damaged) {
                    assert!(layout.annotations.iter().all(|range| range.end <= damaged.len()));
                }
            }
        }
        let mut other = dump[..40].to_vec();
        let far = Layout {
            streams: layout
                .streams
                .iter()
                .cloned()
                .map(|mut s| {
                    s.entry = 1 << 40..(1 << 40) + 12;
                    s
                })
                .collect(),
            ..layout
        };
        assert!(append(&mut other, &far, ID, &[]).is_err(), "another dump's layout");
        assert_eq!(other, dump[..40]);
    }
}
