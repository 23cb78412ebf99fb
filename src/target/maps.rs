//! The mappings of a process (`/proc/PID/maps`, proc(5)).
#![forbid(unsafe_code)]

use std::ops::Range;

/// One line: a range of addresses that is mapped alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses; never empty.
    pub range: Range<u64>,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// May be executed.
    pub executable: bool,
    /// Not shared with other processes.
    pub private: bool,
    /// Offset in the file, in bytes.
    pub offset: u64,
    /// The file that is mapped, if any.
    pub file: Option<FileId>,
    /// Path, or a name in brackets; empty for anonymous memory. What is no UTF-8 became U+FFFD, and the kernel writes a line
    /// break as `\012`.
    pub name: String,
}

/// A file as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// As stat(2) has it. Some file systems (btrfs, overlays) tell another number here than there.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

impl Mapping {
    /// Whether it is a device other than shared or anonymous memory: reading may have effects.
    pub fn is_device(&self) -> bool {
        let name = &self.name;
        name.starts_with("/dev/") && !name.starts_with("/dev/shm/") && !name.starts_with("/dev/zero")
    }

    /// Whether its memory may be looked at.
    pub fn is_memory(&self) -> bool {
        self.readable && !self.is_device()
    }
}

/// The mappings in `text`, ascending as the kernel has them. Lines that are none are left out.
pub(super) fn parse(text: &[u8]) -> Vec<Mapping> {
    let mut maps: Vec<Mapping> = String::from_utf8_lossy(text).lines().filter_map(mapping).collect();
    // A line that the kernel was writing while the mappings changed may repeat or go back.
    let mut end = 0;
    maps.retain(|mapping| {
        let new = mapping.range.start >= end;
        end = end.max(mapping.range.end);
        new
    });
    maps
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let &[read, write, execute, private] = fields.next()?.as_bytes().first_chunk()?;
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (device, inode) = (fields.next()?, fields.next()?.parse().ok()?);
    let device = device.split_once(':').and_then(|(major, minor)| {
        Some(libc::makedev(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
    });
    let name = fields.next().unwrap_or_default().trim_start().to_owned();
    (!range.is_empty()).then_some(Mapping {
        range,
        readable: read == b'r',
        writable: write == b'w',
        executable: execute == b'x',
        private: private == b'p',
        offset,
        file: device.filter(|_| inode != 0).map(|device| FileId { device, inode }),
        name,
    })
}

/// The mapping that holds `address`.
pub fn find(maps: &[Mapping], address: u64) -> Option<&Mapping> {
    let after = maps.partition_point(|mapping| mapping.range.start <= address);
    maps.get(after.checked_sub(1)?).filter(|mapping| mapping.range.contains(&address))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `start-end perms offset [name]` in hexadecimal, as short as it can be.
    pub(in crate::target) fn line(text: &str) -> Mapping {
        let mut words = text.splitn(4, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (range, permissions, offset, name) = (next(), next(), next(), next());
        mapping(&format!("{range} {permissions} {offset} 00:00 0  {name}")).expect(text)
    }

    #[test]
    fn lines() {
        let text = b"1000-2000 r-xp 00003000 08:01 42                         /usr/lib/a b.so (deleted)\n\
            2000-3000 ---p 00000000 00:00 0 \n\
            3000-4000 rw-s 00000000 00:05 9 /dev/dri/card0\n\
            2000-3000 rw-p 00000000 00:05 9 again\n\
            5000-5000 rw-p 00000000 00:05 9 empty\n\
            nonsense\n\
            6000-7000 rw-p 00000000 00:00 0 [heap]\n\
            8000-9000 r";
        let maps = parse(text);
        assert_eq!(maps.iter().map(|m| m.range.start).collect::<Vec<_>>(), [0x1000, 0x2000, 0x3000, 0x6000]);
        let expected = Mapping {
            range: 0x1000..0x2000,
            readable: true,
            writable: false,
            executable: true,
            private: true,
            offset: 0x3000,
            file: Some(FileId { device: libc::makedev(8, 1), inode: 42 }),
            name: "/usr/lib/a b.so (deleted)".into(),
        };
        assert_eq!(maps[0], expected);
        assert!(!maps[1].is_memory() && maps[1].name.is_empty());
        assert!(maps[2].is_device() && !maps[2].private && !maps[2].is_memory());
        assert!(maps[3].is_memory() && maps[3].writable);
        for (address, start) in
            [(0xfff, None), (0x1000, Some(0x1000)), (0x3fff, Some(0x3000)), (0x4000, None)]
        {
            assert_eq!(find(&maps, address).map(|m| m.range.start), start, "{address:x}");
        }
    }
}
