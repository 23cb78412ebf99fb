//! User names in paths.
#![forbid(unsafe_code)]

use super::{Hit, before, end_of};

/// Directories whose children are named after users, in lower case, as the segment between two separators.
const HOMES: &[&[u8]] = &[b"home", b"users", b"documents and settings", b"run/media"];

/// Children of those that are the same everywhere.
const SHARED: &[&[u8]] = &[b"public", b"default", b"all users", b"default user", b"shared", b"lost+found"];

/// The segment behind `/home/`, `/Users/`, `\Users\` or `\Documents and Settings\`. Nothing else of the path goes.
pub(super) fn user_path(line: &[u8], hits: &mut Vec<Hit>) {
    let mut floor = 0;
    for at in memchr::memchr2_iter(b'/', b'\\', line) {
        if at < floor {
            continue;
        }
        let Some(start) = HOMES.iter().find_map(|home| behind(line, at, home)) else { continue };
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
            ],
        );
    }
}
