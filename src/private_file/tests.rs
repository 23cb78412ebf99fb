use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    update(path, 64, |_| Ok(Some(Zeroizing::new(bytes.to_vec()))))
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_replaced_file_is_private_and_leaves_no_temporary_one() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("a/b/file");
    replace(&path, b"one").unwrap();
    update(&path, 64, |present| {
        assert_eq!(present, Some(&b"one"[..]));
        Ok(Some(Zeroizing::new(b"two".to_vec())))
    })
    .unwrap();
    assert_eq!(read(&path, 64).unwrap().unwrap().as_slice(), b"two");
    assert_eq!(names(&root.path().join("a/b")), ["file"]);
    for (path, mode) in [("a", 0o700), ("a/b", 0o700), ("a/b/file", 0o600)] {
        assert_eq!(root.path().join(path).metadata().unwrap().mode() & 0o777, mode, "{path}");
    }
}

#[test]
fn an_error_leaves_the_old_contents() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    replace(&path, b"one").unwrap();
    update(&path, 64, |_| Err(Error::NotInstalled)).unwrap_err();
    update(&path, 64, |_| Ok(None)).unwrap();
    assert_eq!(read(&path, 64).unwrap().unwrap().as_slice(), b"one");
    assert_eq!(names(root.path()), ["file"]);
}

#[test]
fn what_is_not_plainly_ours_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    replace(&at("open"), b"x").unwrap();
    std::fs::set_permissions(at("open"), PermissionsExt::from_mode(0o640)).unwrap();
    replace(&at("target"), b"x").unwrap();
    symlink(at("target"), at("link")).unwrap();
    replace(&at("long"), &[0; 40]).unwrap();
    std::fs::create_dir(at("directory")).unwrap();
    let cases =
        [("open", "chmod 600"), ("link", "symbolic link"), ("long", "longer"), ("directory", "regular file")];
    for (name, why) in cases {
        let error = read(&at(name), 32).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(name), "{name}: {error}");
    }
    assert!(read(&at("none"), 32).unwrap().is_none());
    // A planted link in place of the temporary file must not be followed either.
    symlink(at("target"), at(".victim.tmp")).unwrap();
    replace(&at("victim"), b"y").unwrap_err();
    assert_eq!(read(&at("target"), 32).unwrap().unwrap().as_slice(), b"x");
}

#[test]
fn a_directory_that_others_write_to_is_refused() {
    let root = tempfile::tempdir().unwrap();
    std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let error = replace(&root.path().join("file"), b"x").unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
    assert!(names(root.path()).is_empty());
}

#[test]
fn destroyed_bytes_are_gone_from_every_open_handle() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("file");
    replace(&path, b"secret").unwrap();
    let mut earlier = File::open(&path).unwrap();
    assert!(destroy(&path).unwrap());
    let mut seen = Vec::new();
    earlier.read_to_end(&mut seen).unwrap();
    assert_eq!(seen, [0; 6]);
    assert!(!destroy(&path).unwrap());
}

#[test]
fn writers_take_turns() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("counter");
    let (threads, rounds) = (8, 25);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..rounds {
                    update(&path, 8, |present| {
                        let count = present.map_or(0, |p| u64::from_le_bytes(p.try_into().unwrap()));
                        Ok(Some(Zeroizing::new((count + 1).to_le_bytes().to_vec())))
                    })
                    .unwrap();
                }
            });
        }
    });
    let count = read(&path, 8).unwrap().unwrap();
    assert_eq!(u64::from_le_bytes(count[..].try_into().unwrap()), threads * rounds);
    assert_eq!(names(root.path()), ["counter"]);
}

#[test]
fn a_dropped_lock_is_free_even_if_a_forked_process_has_a_copy() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("lock");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
    let locked = Locked::wait(open(), &path, Lock::Exclusive).unwrap();
    // A descriptor of the same open file, as fork(2) makes.
    let copy = locked.file().try_clone().unwrap();
    assert!(Locked::try_now(open(), &path, Lock::Shared).unwrap().is_none());
    drop(locked);
    assert!(Locked::try_now(open(), &path, Lock::Exclusive).unwrap().is_some());
    drop(copy);
}
