//! Looking for planted values in everything that was written or received.
#![forbid(unsafe_code)]

use std::path::Path;

use cenotaph::spool::{LocalKey, container};
use memchr::memmem;

use super::planted::{ALL, Encoding, Planted, secret_part};
use crate::failure::{Failure, Result};

/// Bytes that left the process that crashed.
pub(crate) struct Source {
    /// A file, or a part of an opened container.
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// Every file below `dir`.
pub(crate) fn files(dir: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|e| Failure::file(&folder, "list", e))?;
        for entry in entries {
            let path = entry.map_err(|e| Failure::file(&folder, "list", e))?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = std::fs::read(&path).map_err(|e| Failure::file(&path, "read", e))?;
                let name = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
                found.push(Source { name, bytes });
            }
        }
    }
    Ok(found)
}

/// The parts of every sealed report among `sources`, opened.
pub(crate) fn opened(sources: &[Source], key: &LocalKey) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for source in sources.iter().filter(|source| source.name.ends_with(".ceno")) {
        for part in container::open(&source.bytes, key)? {
            let name = format!("{} [{:?}]", source.name, part.kind);
            found.push(Source { name, bytes: part.bytes });
        }
    }
    Ok(found)
}

/// A planted value that was found.
pub(crate) struct Leak {
    pub(crate) planted: &'static Planted,
    pub(crate) source: String,
    pub(crate) encoding: Encoding,
}

/// Searches `sources` for every planted value and every eight consecutive characters of it, in every encoding.
pub(crate) fn leaks(sources: &[Source]) -> Vec<Leak> {
    let mut found = Vec::new();
    for planted in ALL {
        let characters: Vec<char> = secret_part(planted).chars().collect();
        for encoding in [Encoding::Utf8, Encoding::Utf16, Encoding::Utf32] {
            let windows: Vec<Vec<u8>> =
                characters.windows(8).map(|w| encoding.encode(&w.iter().collect::<String>())).collect();
            for source in sources {
                if windows.iter().any(|window| memmem::find(&source.bytes, window).is_some()) {
                    found.push(Leak { planted, source: source.name.clone(), encoding });
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::planted;

    #[test]
    fn finds_a_value_and_a_piece_of_it() {
        let piece = &planted::EMAIL.value[3..12];
        for bytes in [
            planted::EMAIL.value.as_bytes().to_vec(),
            [b"xx", piece.as_bytes(), b"yy"].concat(),
            Encoding::Utf32.encode(piece),
        ] {
            let leaks = leaks(&[Source { name: "a".to_owned(), bytes }]);
            assert!(leaks.iter().any(|leak| leak.planted.kind == "e-mail"));
        }
        let clean = [Source { name: "a".to_owned(), bytes: planted::EMAIL.value.as_bytes()[..7].to_vec() }];
        assert!(leaks(&clean).is_empty());
    }
}
