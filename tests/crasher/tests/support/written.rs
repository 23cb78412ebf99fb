//! Every file that a victim's processes write, with every content that was seen in it.
//!
//! As root: fanotify(7) on every mount of a mount namespace that only the victim and what descends from it live in, so
//! each event is theirs, wherever the file lies and even if it is removed at once. As an ordinary user, who may
//! neither use fanotify in this way nor trace Cenotaph's processes (they are not dumpable): inotify(7) on the folders
//! where this user can make files; what was written and removed before it could be read is missed. [`Watch::way`]
//! says which it was. Either way a content that was overwritten before it could be read is missed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A file, with one of its contents.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Written {
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// A watch that is on.
pub(crate) struct Watch {
    /// How it watches, for the test's output.
    pub(crate) way: &'static str,
    /// Whether no file can have been missed.
    pub(crate) is_certain: bool,
    stop: Arc<AtomicBool>,
    reader: JoinHandle<BTreeSet<Written>>,
}

impl Watch {
    /// Watches what is started **by this thread** from now on. `folders` are those that are watched, with all below
    /// them, where only inotify is to be had.
    pub(crate) fn start(folders: &[PathBuf]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        match fanotify() {
            Ok(events) => Self {
                way: "fanotify on all mounts of the victim's own mount namespace",
                is_certain: true,
                stop,
                reader: std::thread::spawn(move || read_fanotify(&events, &stopped)),
            },
            Err(why) => {
                let inotify = Inotify::start(folders).unwrap();
                println!("fanotify cannot be used ({why})");
                Self {
                    way: "inotify on the folders that this user can write to",
                    is_certain: false,
                    stop,
                    reader: std::thread::spawn(move || inotify.read(&stopped)),
                }
            }
        }
    }

    /// What was written until now. Call it when the processes have ended.
    pub(crate) fn end(self) -> BTreeSet<Written> {
        self.stop.store(true, Ordering::SeqCst);
        self.reader.join().unwrap()
    }
}

/// Gives this thread a mount namespace of its own and marks all its mounts.
fn fanotify() -> io::Result<OwnedFd> {
    // SAFETY: plain values.
    let fd = unsafe {
        libc::fanotify_init(
            libc::FAN_CLASS_NOTIF
                | libc::FAN_CLOEXEC
                | libc::FAN_NONBLOCK
                | libc::FAN_UNLIMITED_QUEUE
                | libc::FAN_UNLIMITED_MARKS,
            (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC) as libc::c_uint,
        )
    };
    checked(fd)?;
    // SAFETY: made just above.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: affects this thread only, which shares its root and working directory with nobody afterwards.
    checked(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    // SAFETY: C strings, or null where mount(2) ignores the argument.
    checked(unsafe {
        libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null(),
        )
    })?;
    // What is behind these is not stored anywhere.
    const NOT_FILES: [&str; 12] = [
        "proc",
        "sysfs",
        "devtmpfs",
        "devpts",
        "cgroup",
        "cgroup2",
        "mqueue",
        "securityfs",
        "debugfs",
        "tracefs",
        "pstore",
        "bpf",
    ];
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mut marked = 0;
    for line in mounts.lines() {
        let (Some(point), Some((_, source))) = (line.split(' ').nth(4), line.split_once(" - ")) else {
            continue;
        };
        let kind = source.split(' ').next().unwrap_or_default();
        if NOT_FILES.contains(&kind) {
            continue;
        }
        let path = CString::new(unescape(point)).unwrap();
        let what = libc::FAN_CLOSE_WRITE | libc::FAN_MODIFY;
        // SAFETY: the path is a C string.
        let result = unsafe {
            libc::fanotify_mark(
                fd.as_raw_fd(),
                libc::FAN_MARK_ADD | libc::FAN_MARK_MOUNT,
                what,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        // A mount that another one hides cannot be reached by anybody.
        if result == 0 {
            marked += 1;
        } else if point == "/" {
            return Err(io::Error::last_os_error());
        }
    }
    assert!(marked > 0);
    Ok(fd)
}

/// Mount points have spaces and the like as octal numbers (proc_pid_mountinfo(5)).
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn read_fanotify(events: &OwnedFd, stop: &AtomicBool) -> BTreeSet<Written> {
    let mut written = BTreeSet::new();
    let own = i32::try_from(std::process::id()).unwrap();
    let mut buffer = vec![0u64; 8192];
    loop {
        let stopping = stop.load(Ordering::SeqCst);
        // SAFETY: the buffer is valid for writes of its length.
        let length = unsafe { libc::read(events.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len() * 8) };
        if length <= 0 {
            // Nothing is there; if that was so after the request to stop, nothing will come.
            if stopping {
                return written;
            }
            wait_readable(events);
            continue;
        }
        let mut offset = 0;
        let length = usize::try_from(length).unwrap();
        while offset < length {
            // SAFETY: the kernel put whole events there, each with its length first (fanotify(7)).
            let event = unsafe {
                buffer
                    .as_ptr()
                    .cast::<u8>()
                    .add(offset)
                    .cast::<libc::fanotify_event_metadata>()
                    .read_unaligned()
            };
            offset += event.event_len as usize;
            assert_eq!(event.mask & libc::FAN_Q_OVERFLOW, 0, "events were lost");
            if event.fd < 0 {
                continue;
            }
            // SAFETY: a new descriptor for this event.
            let file = File::from(unsafe { OwnedFd::from_raw_fd(event.fd) });
            // This thread lives in the namespace too.
            if event.pid != own {
                let path = fs::read_link(format!("/proc/self/fd/{}", event.fd)).unwrap_or_default();
                note(&mut written, file, path);
            }
        }
    }
}

fn note(written: &mut BTreeSet<Written>, mut file: File, path: PathBuf) {
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        let mut bytes = Vec::new();
        if file.read_to_end(&mut bytes).is_ok() {
            written.insert(Written { path, bytes });
        }
    }
}

/// inotify on some folders and all below them, and on the common folders for temporary files.
struct Inotify {
    events: OwnedFd,
    watched: Vec<(i32, PathBuf)>,
}

const EVENTS: u32 = libc::IN_MODIFY | libc::IN_CLOSE_WRITE | libc::IN_CREATE | libc::IN_MOVED_TO;

impl Inotify {
    fn start(folders: &[PathBuf]) -> io::Result<Self> {
        // SAFETY: plain values.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        checked(fd)?;
        // SAFETY: made just above.
        let mut inotify = Self { events: unsafe { OwnedFd::from_raw_fd(fd) }, watched: Vec::new() };
        for folder in folders {
            inotify.add(folder)?;
        }
        // Others write there too: only what is right in them, and belongs to this user, is looked at.
        for folder in ["/tmp", "/var/tmp", "/dev/shm"] {
            let _ = inotify.watch(Path::new(folder));
        }
        Ok(inotify)
    }

    fn add(&mut self, folder: &Path) -> io::Result<()> {
        self.watch(folder)?;
        for entry in fs::read_dir(folder)?.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.add(&entry.path())?;
            }
        }
        Ok(())
    }

    fn watch(&mut self, folder: &Path) -> io::Result<()> {
        let path = CString::new(folder.as_os_str().as_bytes())?;
        // SAFETY: the path is a C string.
        let number = unsafe { libc::inotify_add_watch(self.events.as_raw_fd(), path.as_ptr(), EVENTS) };
        checked(number)?;
        self.watched.push((number, folder.to_path_buf()));
        Ok(())
    }

    fn read(mut self, stop: &AtomicBool) -> BTreeSet<Written> {
        let mut written = BTreeSet::new();
        let mut buffer = vec![0u8; 64 * 1024];
        loop {
            let stopping = stop.load(Ordering::SeqCst);
            // SAFETY: the buffer is valid for writes of its length.
            let length =
                unsafe { libc::read(self.events.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            if length <= 0 {
                if stopping {
                    return written;
                }
                wait_readable(&self.events);
                continue;
            }
            let mut rest = &buffer[..usize::try_from(length).unwrap()];
            let mut changed = Vec::new();
            // Watch, mask, cookie, length of the name, name (inotify(7)).
            while let Some((head, behind)) = rest.split_first_chunk::<16>() {
                let word = |at: usize| u32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
                let (name, after) = behind.split_at(word(12) as usize);
                rest = after;
                assert_eq!(word(4) & libc::IN_Q_OVERFLOW, 0, "events were lost");
                let name: Vec<u8> = name.iter().copied().take_while(|&byte| byte != 0).collect();
                let folder = self.watched.iter().find(|(number, _)| *number == word(0) as i32);
                if let Some((_, folder)) = folder {
                    changed.push(folder.join(std::ffi::OsStr::from_bytes(&name)));
                }
            }
            for path in changed {
                self.look(&path, &mut written);
            }
        }
    }

    /// A file is read; a new folder is watched, and what it holds already is read.
    fn look(&mut self, path: &Path, written: &mut BTreeSet<Written>) {
        // SAFETY: no precondition.
        let user = unsafe { libc::geteuid() };
        let Ok(found) = fs::symlink_metadata(path) else { return };
        if found.uid() != user {
            return;
        }
        if found.is_dir()
            && self
                .watched
                .iter()
                .any(|(_, folder)| path.starts_with(folder) && folder.components().count() > 2)
        {
            let _ = self.watch(path);
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.look(&entry.path(), written);
            }
        } else if found.is_file()
            && let Ok(file) = File::open(path)
        {
            note(written, file, path.to_path_buf());
        }
    }
}

fn wait_readable(fd: &OwnedFd) {
    let mut polled = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd. The time-out is for the request to stop.
    unsafe { libc::poll(&raw mut polled, 1, 20) };
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
