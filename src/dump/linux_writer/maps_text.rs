//! The text of `/proc/PID/maps` without its repetitions.
#![forbid(unsafe_code)]

use std::collections::HashMap;

/// Every line of `text`, in its order and with the kernel's fields, but without padding before the path; and a path only
/// in the first line of its file. Device and inode, which every line has, tell the file of those that follow.
///
/// A library has five lines or so. With their paths they would be half of a small dump.
pub(super) fn brief(text: &[u8]) -> Vec<u8> {
    let mut brief = Vec::with_capacity(text.len());
    let mut named: HashMap<&[u8], &[u8]> = HashMap::new();
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        match fields(line) {
            Some((head, file, path)) if !path.is_empty() => {
                brief.extend_from_slice(head);
                // Inode 0: no file, but a name in brackets.
                let known = !file.ends_with(b" 0") && named.insert(file, path) == Some(path);
                // As the kernel does where there is no path; readers count the fields.
                brief.push(b' ');
                if !known {
                    brief.extend_from_slice(path);
                }
                brief.push(b'\n');
            }
            _ => brief.extend_from_slice(line),
        }
    }
    brief
}

/// The five fields of a line, of these device and inode, and the path.
fn fields(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let line = line.strip_suffix(b"\n")?;
    let mut spaces = memchr::memchr_iter(b' ', line);
    let (file, end) = (spaces.nth(2)? + 1, spaces.nth(1)?);
    let path = line.get(end..)?.trim_ascii_start();
    Some((line.get(..end)?, line.get(file..end)?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_named_once() {
        let text = b"1000-2000 r--p 00000000 fe:00 42                         /a b\n\
            2000-3000 r-xp 00001000 fe:00 42                         /a b\n\
            3000-4000 rw-p 00000000 00:00 0 \n\
            4000-5000 rw-p 00000000 00:00 0                          [heap]\n\
            5000-6000 rw-p 00000000 00:00 0                          [heap]\n\
            6000-7000 rw-p 00002000 fe:00 42                         /a b\n\
            7000-8000 r--p 00000000 fe:01 42                         /a b\n\
            8000-9000 r--p 00000000 fe:00 42                         /renamed\n\
            nonsense\n9000-a000 r--p 0000";
        let expected = "1000-2000 r--p 00000000 fe:00 42 /a b\n\
            2000-3000 r-xp 00001000 fe:00 42 \n\
            3000-4000 rw-p 00000000 00:00 0 \n\
            4000-5000 rw-p 00000000 00:00 0 [heap]\n\
            5000-6000 rw-p 00000000 00:00 0 [heap]\n\
            6000-7000 rw-p 00002000 fe:00 42 \n\
            7000-8000 r--p 00000000 fe:01 42 /a b\n\
            8000-9000 r--p 00000000 fe:00 42 /renamed\n\
            nonsense\n9000-a000 r--p 0000";
        assert_eq!(String::from_utf8(brief(text)).unwrap(), expected);
        assert_eq!(brief(b""), b"");
    }
}
