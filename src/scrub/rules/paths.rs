//! User names in paths.
#![forbid(unsafe_code)]

use super::{Hit, before, end_of};

/// Directories whose children are named after users, in lower case, as the segment between two separators.
const HOMES: &[&[u8]] = &[b"home", b"users", b"documents and settings", b"run/media"];

/// Children of those that are the same everywhere.
const SHARED: &[&[u8]] = &[b"public", b"default", b"all users", b"default user", b"shared", b"lost+found"];

/// Where systems mount what a user plugs in, in a folder of the user's name. Only at a path's start: web servers have such folders, too.
const MEDIA: &[u8] = b"media";
/// What is mounted there itself, and what web servers keep there.
const NO_USERS: &[&[u8]] = &[
    b"apt",
    b"audio",
    b"backup",
    b"cache",
    b"card",
    b"cd",
    b"cdrom",
    b"common",
    b"css",
    b"data",
    b"disk",
    b"dvd",
    b"external",
    b"files",
    b"floppy",
    b"fonts",
    b"hdd",
    b"icons",
    b"image",
    b"images",
    b"img",
    b"iso",
    b"js",
    b"media",
    b"mmc",
    b"mnt",
    b"music",
    b"nas",
    b"original",
    b"photo",
    b"photos",
    b"pics",
    b"pictures",
    b"play",
    b"root",
    b"sd",
    b"sdcard",
    b"share",
    b"sound",
    b"sounds",
    b"source",
    b"static",
    b"storage",
    b"stream",
    b"theme",
    b"themes",
    b"thumbs",
    b"tmp",
    b"upload",
    b"uploads",
    b"usb",
    b"usbdisk",
    b"v1",
    b"v2",
    b"video",
    b"videos",
];

/// The segment behind `/home/`, `/Users/`, `\Users\` or `\Documents and Settings\`. Nothing else of the path goes.
pub(super) fn user_path(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for at in memchr::memchr2_iter(b'/', b'\\', line) {
        // How those begin that are looked for.
        let first = line.get(at + 1).map(u8::to_ascii_lowercase);
        if at < floor || !matches!(first, Some(b'h' | b'u' | b'd' | b'r' | b'm')) {
            continue;
        }
        let found = HOMES.iter().find_map(|home| behind(line, at, home)).or_else(|| mounted(line, at));
        let Some(start) = found else { continue };
        let end = segment_end(line, start, line[start - 1] == b'\\');
        if end > start && !SHARED.iter().any(|shared| line[start..end].eq_ignore_ascii_case(shared)) {
            hits.push(Hit { range: start..end, rule: "user-path" });
        }
        floor = end;
    }
}

/// The index behind the separators that follow `home`, which follows the separator at `at`. A backslash may be doubled,
/// as in source code and JSON.
fn behind(line: &[u8], at: usize, home: &[u8]) -> Option<usize> {
    let end = at + 1 + home.len();
    let name = line.get(at + 1..end)?;
    let separator = *line.get(end).filter(|&&byte| is_separator(byte))?;
    // A doubled separator before the name leaves the second one to be the start.
    (name.eq_ignore_ascii_case(home) && before(line, end) != Some(separator))
        .then(|| end + line[end..].iter().take(2).take_while(|&&byte| byte == separator).count())
}

/// Where a user's name begins in `/media/NAME/`, the slash at `at` being its first.
fn mounted(line: &[u8], at: usize) -> Option<usize> {
    let start = behind(line, at, MEDIA)?;
    let end = end_of(line, start, |byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let name = &line[start..end];
    // useradd(8): a letter or an underscore first, 32 characters at most.
    let is_name = name.first().is_some_and(|&byte| byte.is_ascii_lowercase() || byte == b'_')
        && (2..=32).contains(&name.len())
        && !name.iter().any(u8::is_ascii_uppercase);
    // "sda1", "usb0", "cdrom2" are devices.
    let stem = &name[..name.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1)];
    let is_device =
        NO_USERS.contains(&stem) || NO_USERS.contains(&name) || (stem.len() == 3 && stem.starts_with(b"sd"));
    let begins = match before(line, at) {
        Some(b'/') => line[..at].ends_with(b"file://"),
        Some(byte) => !(byte.is_ascii_alphanumeric() || byte >= 0x80 || b"_-.~\\)]}".contains(&byte)),
        None => true,
    };
    // A request's path: "GET /media/...".
    let requested = [&b"GET "[..], b"HEAD ", b"POST ", b"PUT "].iter().any(|word| line[..at].ends_with(word));
    (line[at] == b'/' && line.get(end) == Some(&b'/') && is_name && !is_device && begins && !requested)
        .then_some(start)
}

fn is_separator(byte: u8) -> bool {
    byte == b'/' || byte == b'\\'
}

/// Where the user's name ends. On Windows it may hold spaces: if a separator, a quote or the end follows them.
fn segment_end(line: &[u8], start: usize, spaces: bool) -> usize {
    let ends = |b: u8| b < b' ' || is_separator(b) || b"\"'`<>|:;,*?()[]{}&=".contains(&b);
    let word = end_of(line, start, |byte| byte > b' ' && !ends(byte));
    if !spaces {
        return word;
    }
    // Windows user names have at most 20 characters, directory names of profiles some more.
    let limit = line.len().min(start + 64);
    let whole = end_of(&line[..limit], start, |byte| !ends(byte));
    let closed = line.get(whole).is_none_or(|&byte| is_separator(byte) || byte == b'"' || byte == b'\'');
    if closed && whole < start + 64 { whole } else { word }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;

    #[test]
    fn names() {
        check(
            super::user_path,
            &[
                "/home/«wilhelmina»/x",
                "open /Users/«jane.doe»: denied",
                "C:\\Users\\«Jane Doe»\\Documents",
                "C:\\\\Users\\\\«jane»\\\\x",
                "D:/Users/«jane»/x",
                "C:\\Documents and Settings\\«Jane D.»\\x",
                "file:///home/«al»",
                "/var/home/«al»/",
                "\"/home/«jürgen»\"",
                "PATH=/home/«a»/bin:/home/«b»/bin",
                "C:\\Users\\«jane» not found, sorry",
                "/run/media/«jane»/disk",
                "C:\\Users\\«Jane Doe»",
                "/mnt/c/Users/«jane»/x",
                "\\\\server\\users\\«jane»\\x",
                "/media/«jane»/disk/x",
                "open \"/media/«jane.doe»/USB DISK/a\"",
                "file:///media/«jane»/x",
                "DIR=/media/«jane2»/x",
            ],
        );
    }

    #[test]
    fn no_names() {
        check(
            super::user_path,
            &[
                "/home",
                "/home/",
                "/homes/x",
                "/athome/x",
                "home/x",
                "/Users/Shared/x",
                "C:\\Users\\Public\\x",
                "/usr/bin",
                "users/x",
                "/user/x",
                "/media/cdrom/x",
                "/media/usb0/x",
                "/media/sda1/x",
                "/media/jane",
                "/media/",
                "/media//x",
                "/media/Disk/x",
                "GET /media/jane/x",
                "https://example.org/media/jane/x",
                "/var/media/jane/x",
                "../media/jane/x",
                "/media/images/x",
                "/multimedia/jane/x",
            ],
        );
    }
}
