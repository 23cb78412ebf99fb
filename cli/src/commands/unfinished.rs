//! Files that hold what somebody's process held, or what is left of it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::failure::{Failure, Result};
use crate::interrupt::Temporary;

/// A file only for this user that gets its name when it is whole, and is gone if that does not happen: half a dump should not
/// look like one, and what was there before stays until then.
///
/// Until then it has no name, so that nothing is left of it however the process ends; where the file system has no such files, a name
/// that an interrupt removes.
///
/// A symbolic link of that name is replaced by the file, and what it leads to stays as it is: nobody else can have it written to by
/// laying a link. It must lead to a file or to nothing. A link to something else, or one that the system keeps (`/dev/stdout`), is refused.
pub(super) struct Unfinished {
    pub(super) file: File,
    /// Its name meanwhile, if it has one.
    temporary: Option<Temporary>,
    path: PathBuf,
}

impl Unfinished {
    pub(super) fn create(path: &Path) -> Result<Self> {
        // A device, or a link to one, that is replaced by a file is lost to the whole machine.
        if path.metadata().is_ok_and(|found| !found.is_file()) || is_system_link(path) {
            return Err(Failure::file(path, "write", "it is there and no file; name another"));
        }
        let (file, temporary) = match nameless(path).map_err(|e| Failure::file(path, "write", e))? {
            Some(file) => (file, None),
            None => {
                let (temporary, file) =
                    Temporary::create(besides(path), |name| private().create_new(true).open(name))?;
                (file, Some(temporary))
            }
        };
        Ok(Self { file, temporary, path: path.to_path_buf() })
    }

    pub(super) fn finish(self) -> Result<()> {
        let Self { file, temporary, path } = &self;
        let named = match temporary {
            Some(temporary) => temporary.rename(path),
            None => name(file, path),
        };
        named.map_err(|e| Failure::file(path, "write", e))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

/// Where `path` is replaced from, in the same folder.
fn besides(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

/// An open file's own link, by which it can get a name (open(2), `O_TMPFILE`).
fn link_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A file without a name where `path` is to be, or none if the file system or the kernel has no such files, or `/proc` is not there,
/// which it would get its name by.
fn nameless(path: &Path) -> io::Result<Option<File>> {
    match private().custom_flags(libc::O_TMPFILE).open(folder(path)) {
        Ok(file) => Ok(Some(file).filter(|file| link_of(file).symlink_metadata().is_ok())),
        // open(2): the file system, or the kernel, which takes it for opening a folder.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Gives a file without a name that of `path`, replacing what is there.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let link = |to: &Path| {
        rustix::fs::linkat(
            rustix::fs::CWD,
            link_of(file),
            rustix::fs::CWD,
            to,
            rustix::fs::AtFlags::SYMLINK_FOLLOW,
        )
        .map_err(io::Error::from)
    };
    match link(path) {
        // linkat(2) replaces nothing, rename(2) does.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let whole = besides(path);
            link(&whole)?;
            fs::rename(&whole, path).inspect_err(|_| {
                let _ = fs::remove_file(&whole);
            })
        }
        linked => linked,
    }
}

/// Writes a whole file in that way. What is there itself and no file, such as a terminal or a pipe, is written to as it is.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |error: io::Error| Failure::file(path, "write", error);
    if is_written_as_it_is(path) {
        return OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut to| to.write_all(bytes))
            .map_err(failed);
    }
    let mut unfinished = Unfinished::create(path)?;
    unfinished.file.write_all(bytes).map_err(failed)?;
    unfinished.finish()
}

/// Whether [`write`] can begin. What is there stays.
pub(super) fn check(path: &Path) -> Result<()> {
    match is_written_as_it_is(path) {
        true => Ok(()),
        false => Unfinished::create(path).map(drop),
    }
}

fn is_written_as_it_is(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.is_file() && !found.is_symlink() && !found.is_dir())
}

/// Links that are followed, at most: those that Linux follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Whether `path` is a symbolic link of the system's, or leads over one: to whatever a process has open, which may be a file now.
fn is_system_link(path: &Path) -> bool {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let Ok(next) = fs::read_link(&path) else { return false };
        let Ok(folder) = folder(&path).canonicalize() else { return false };
        if folder == Path::new("/dev") || folder.starts_with("/proc") {
            return true;
        }
        path = folder.join(next);
    }
    false
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether both names lead to one file, or would if it were there.
pub(super) fn is_same(a: &Path, b: &Path) -> bool {
    let id = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
    let place = |path: &Path| Some((folder(path).canonicalize().ok()?, path.file_name()?.to_owned()));
    (id(a).is_some() && id(a) == id(b)) || (place(a).is_some() && place(a) == place(b))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let why = Unfinished::create(&socket).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("no file"), "{why}");
        assert!(!socket.metadata().unwrap().is_file());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_replaced_if_it_leads_to_a_file_or_to_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("file"), "somebody's").unwrap();
        // What it leads to may be a file, such as a log that a descriptor is redirected to.
        let open = File::open(place("file")).unwrap();
        let descriptor = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open)));
        for (number, (target, is_replaced)) in [
            (place("file"), true),
            (place("absent"), true),
            (PathBuf::from("/dev/null"), false),
            (PathBuf::from("/proc/self/fd/1"), false),
            (PathBuf::from("/dev/stdout"), false),
            (descriptor, false),
            (place("link-4"), false),
            (folder.path().to_path_buf(), false),
        ]
        .into_iter()
        .enumerate()
        {
            let link = place(&format!("link-{number}"));
            std::os::unix::fs::symlink(&target, &link).unwrap();
            let created = Unfinished::create(&link).and_then(Unfinished::finish);
            assert_eq!(created.is_ok(), is_replaced, "{target:?}");
            assert_eq!(fs::symlink_metadata(&link).unwrap().is_symlink(), !is_replaced, "{target:?}");
            assert_eq!(write(&link, b"x").is_ok(), is_replaced, "{target:?}");
        }
        assert_eq!(fs::read(place("file")).unwrap(), b"somebody's");
        assert!(!place("absent").exists());
        assert!(write(Path::new("/dev/null"), b"x").is_ok(), "itself, it is written to");
    }

    #[test]
    fn it_has_no_name_until_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let names = || fs::read_dir(folder.path()).unwrap().count();
        for (before, text) in [(0, "first"), (1, "second")] {
            let mut unfinished = Unfinished::create(&path).unwrap();
            assert_eq!(unfinished.temporary.is_none(), nameless(&path).unwrap().is_some());
            unfinished.file.write_all(text.as_bytes()).unwrap();
            assert_eq!(names(), before + usize::from(unfinished.temporary.is_some()));
            unfinished.finish().unwrap();
            assert_eq!((names(), fs::read(&path).unwrap()), (1, text.as_bytes().to_vec()));
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
        drop(Unfinished::create(&path).unwrap());
        assert_eq!(names(), 1);
        // In a folder that is not there, the reason.
        let why = Unfinished::create(&folder.path().join("absent/out")).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("No such file"), "{why}");
        // One that stands in the way is not taken for the own.
        fs::write(besides(&path), "somebody's").unwrap();
        assert!(Unfinished::create(&path).and_then(Unfinished::finish).is_err());
        assert_eq!(fs::read(besides(&path)).unwrap(), b"somebody's");
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }

    #[test]
    fn one_file_by_two_names() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::write(place("a"), "").unwrap();
        fs::create_dir(place("inner")).unwrap();
        fs::hard_link(place("a"), place("hard")).unwrap();
        std::os::unix::fs::symlink("a", place("soft")).unwrap();
        for (a, b, expected) in [
            ("a", "a", true),
            ("a", "hard", true),
            ("a", "soft", true),
            ("a", "inner/../a", true),
            ("absent", "inner/../absent", true),
            ("absent", "other", false),
            ("a", "absent", false),
            ("absent", "inner/absent", false),
        ] {
            assert_eq!(is_same(&place(a), &place(b)), expected, "{a} {b}");
        }
    }
}
