//! Opening a file that only root and this user can have put there: code that is to be loaded or executed.
//!
//! The path is walked component by component with descriptors (openat(2)), symbolic links by hand, so that what was
//! checked is what is opened. As with sshd's StrictModes everything on the way must belong to root or to this user and not be
//! writable by others; in a directory with the sticky bit (`/tmp`) others can add entries but not exchange ours, so there
//! it is enough that the entry itself is right.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Symbolic links on the way, at most (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Opens a regular file for reading.
///
/// # Errors
/// A sentence that names the file or directory, the cause and the way out.
pub(crate) fn open(path: &Path) -> Result<File, String> {
    // SAFETY: always allowed.
    open_for(path, unsafe { libc::geteuid() })
}

fn open_for(path: &Path, user: libc::uid_t) -> Result<File, String> {
    if !path.is_absolute() {
        return Err(format!("{} is a relative path; give an absolute one", path.display()));
    }
    let root = || open_at(None, OsStr::new("/"), libc::O_PATH | libc::O_DIRECTORY);
    let mut here = PathBuf::from("/");
    let mut directory = root().map_err(|error| failed(&here, &error))?;
    check_directory(&here, directory.as_fd(), user)?;
    let (mut rest, mut links) = (components(path), 0);
    while let Some(name) = rest.pop_front() {
        let there = here.join(&name);
        let error = |error: io::Error| failed(&there, &error);
        let found =
            open_at(Some(directory.as_fd()), &name, libc::O_PATH | libc::O_NOFOLLOW).map_err(error)?;
        let status = status(found.as_fd()).map_err(error)?;
        match status.st_mode & libc::S_IFMT {
            libc::S_IFLNK => {
                check_owner(&there, "symbolic link", &status, user)?;
                links += 1;
                if links > MOST_LINKS {
                    return Err(format!("{}: too many symbolic links", path.display()));
                }
                let target = read_link(found.as_fd()).map_err(error)?;
                if target.is_absolute() {
                    here = PathBuf::from("/");
                    directory = root().map_err(error)?;
                }
                components(&target).into_iter().rev().for_each(|part| rest.push_front(part));
            }
            libc::S_IFDIR => {
                check_directory(&there, found.as_fd(), user)?;
                directory = found;
                if name == ".." {
                    here.pop();
                } else {
                    here = there;
                }
            }
            libc::S_IFREG if rest.is_empty() => {
                check_owner(&there, "file", &status, user)?;
                if status.st_mode & 0o022 != 0 {
                    return Err(writable(&there, &status));
                }
                // The very same file: the name is not looked up again.
                let again = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
                return File::open(again).map_err(error);
            }
            libc::S_IFREG => return Err(failed(&there, &io::Error::from_raw_os_error(libc::ENOTDIR))),
            _ => return Err(format!("{} is no regular file", there.display())),
        }
    }
    Err(format!("{} is a directory; give a file", path.display()))
}

/// The names on the way, `..` included: behind a link it leads elsewhere than in the text.
fn components(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

fn check_directory(path: &Path, directory: BorrowedFd<'_>, user: libc::uid_t) -> Result<(), String> {
    let status = status(directory).map_err(|error| failed(path, &error))?;
    check_owner(path, "directory", &status, user)?;
    if status.st_mode & 0o022 != 0 && status.st_mode & libc::S_ISVTX == 0 {
        return Err(writable(path, &status));
    }
    Ok(())
}

fn check_owner(path: &Path, what: &str, status: &libc::stat, user: libc::uid_t) -> Result<(), String> {
    if status.st_uid == 0 || status.st_uid == user {
        return Ok(());
    }
    Err(format!(
        "the {what} {} belongs to user {}, who could exchange what is loaded; it must belong to root or to user {user}",
        path.display(),
        status.st_uid
    ))
}

fn writable(path: &Path, status: &libc::stat) -> String {
    format!(
        "{} is writable by others (mode {:o}), who could exchange what is loaded; run chmod go-w on it",
        path.display(),
        status.st_mode & 0o7777
    )
}

fn failed(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

fn open_at(directory: Option<BorrowedFd<'_>>, name: &OsStr, flags: libc::c_int) -> io::Result<OwnedFd> {
    let name = CString::new(name.as_bytes())?;
    let at = directory.map_or(libc::AT_FDCWD, |directory| directory.as_raw_fd());
    // SAFETY: an open directory or AT_FDCWD, and a NUL-terminated name.
    let fd = super::retry(|| unsafe { libc::openat(at, name.as_ptr(), flags | libc::O_CLOEXEC) })?;
    // SAFETY: openat returned it and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn status(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: integers only, so all-zero is a value.
    let mut status: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a place for the result.
    super::retry(|| unsafe { libc::fstat(fd.as_raw_fd(), &raw mut status) })?;
    Ok(status)
}

fn read_link(link: BorrowedFd<'_>) -> io::Result<PathBuf> {
    let mut text = vec![0u8; libc::PATH_MAX as usize];
    // SAFETY: an open link, an empty name that stands for it (readlinkat(2)), and a buffer with its length.
    let length =
        unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), text.as_mut_ptr().cast(), text.len()) };
    text.truncate(usize::try_from(length).map_err(|_| io::Error::last_os_error())?);
    Ok(PathBuf::from(OsString::from_vec(text)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let user = folder.path().metadata().unwrap().uid();
        let inner = folder.path().join("inner");
        let file = inner.join("file");
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        mode(&inner, 0o755);
        mode(&file, 0o644);
        let why = |path: &Path| open_for(path, user).map(|_| ()).unwrap_err();
        assert!(open_for(&file, user).is_ok(), "{}", why(&file));
        assert!(why(Path::new("inner/file")).contains("relative"));
        assert!(why(&inner).contains("directory"));
        assert!(why(&file.join("x")).contains("Not a directory"));
        assert!(why(Path::new("/dev/null")).contains("no regular file"));
        assert!(why(&inner.join("none")).contains("No such file"));
        for bad in [0o666, 0o664, 0o646] {
            mode(&file, bad);
            let why = why(&file);
            assert!(why.contains("file is writable by others") && why.contains("chmod go-w"), "{why}");
        }
        mode(&file, 0o600);
        for (bad, refused) in [(0o777, true), (0o775, true), (0o1777, false), (0o711, false)] {
            mode(&inner, bad);
            assert_eq!(open_for(&file, user).is_err(), refused, "{bad:o}");
        }
        // Another user's eyes: the directory that mkdtemp made is not theirs.
        if user != 0 {
            let why = open_for(&file, user + 1).unwrap_err();
            assert!(why.contains(&format!("belongs to user {user}")), "{why}");
        }
    }

    #[test]
    fn links_are_followed_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let user = folder.path().metadata().unwrap().uid();
        let (open_to_all, safe) = (folder.path().join("open"), folder.path().join("safe"));
        for directory in [&open_to_all, &safe] {
            fs::create_dir(directory).unwrap();
        }
        mode(&safe, 0o755);
        fs::write(safe.join("file"), "right").unwrap();
        mode(&safe.join("file"), 0o644);
        symlink("../safe/./file", safe.join("link")).unwrap();
        symlink("link", safe.join("chain")).unwrap();
        symlink(safe.join("chain"), folder.path().join("absolute")).unwrap();
        symlink("loop", safe.join("loop")).unwrap();
        for name in ["safe/link", "safe/chain", "absolute", "safe/../safe/file"] {
            let file = open_for(&folder.path().join(name), user).unwrap();
            assert_eq!(io::read_to_string(file).unwrap(), "right", "{name}");
        }
        assert!(open_for(&safe.join("loop"), user).unwrap_err().contains("too many"));
        // A link on the way lies where anybody could put another one.
        symlink(&safe, open_to_all.join("way")).unwrap();
        symlink(open_to_all.join("way"), safe.join("detour")).unwrap();
        mode(&open_to_all, 0o777);
        let why = open_for(&safe.join("detour/file"), user).unwrap_err();
        assert!(why.contains("open is writable by others"), "{why}");
        if user == 0 {
            std::os::unix::fs::lchown(safe.join("link"), Some(7), None).unwrap();
            let why = open_for(&safe.join("chain"), user).unwrap_err();
            assert!(why.contains("symbolic link") && why.contains("belongs to user 7"), "{why}");
        }
    }
}
