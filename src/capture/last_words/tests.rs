use std::os::fd::OwnedFd;

use super::*;
use crate::capture::{forbid_records, keep_records, module_scan};
use crate::minimal_record::read::Record;

struct Folder(std::path::PathBuf);

impl Folder {
    fn path(&self) -> &std::path::Path {
        &self.0
    }
}

fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// One test, as there is one folder and one count for the process.
#[test]
fn a_record_of_this_very_thread() {
    module_scan::refresh(&|_| false);
    prepare(Constants { id: [7; 16], application: [b'a'; TEXT], version: [b'v'; TEXT] });
    let secret = std::hint::black_box(*b"a value that nobody else may see");
    let mut crash = context::here();
    crash.siginfo.ssi_signo = libc::SIGSEGV as u32;
    crash.siginfo.ssi_code = 1;
    crash.siginfo.ssi_addr = u64::from_le_bytes(*b"typed\0\0\0");
    crash.context.uc_mcontext.gregs[libc::REG_RBP as usize] = i64::from_le_bytes(*b"general\0");
    assert!(!write(&crash, 1, None, Why::Gone), "nowhere to");
    let place = tempfile::tempdir().unwrap();
    let folder = &place;
    let above = std::fs::File::open(folder.path().parent().unwrap()).unwrap();
    let name = folder.path().file_name().unwrap().as_encoded_bytes();
    let deep = [name, b"\0deep\0er\0"].concat();
    keep_records(OwnedFd::from(above), &deep);
    let folder = Folder(folder.path().join("deep/er"));
    assert!(write(&crash, 0xab, None, Why::Silent));
    let found = files(folder.path());
    let name = format!("00000000000000ab-{:08x}.record", std::process::id());
    assert_eq!(found, [folder.path().join(name)]);
    let bytes = std::fs::read(&found[0]).unwrap();
    let record = Record::parse(&bytes).unwrap();
    let head = record.head;
    assert_eq!((head.event, head.why, head.signal, head.code), (Event::Fault, Why::Silent, 11, 1));
    assert_eq!((head.address, head.fp), (0, 0), "text in an address, a number in the frame pointer");
    assert_eq!(head.sp, crash.context.uc_mcontext.gregs[libc::REG_RSP as usize] as u64);
    assert!(record.words.iter().filter(|&&word| word != 0).count() > 10);
    for piece in secret.windows(8).map(|piece| memchr::memmem::find(&bytes, piece)) {
        assert_eq!(piece, None);
    }

    let panicked = write(&crash, 0xac, Some(&[b'p'; TEXT]), Why::Gone);
    assert!(panicked && files(folder.path()).len() == 2);
    for (pid, time) in [(crash.pid, 0xad), (crash.pid + 1, 0xac)] {
        withdraw(pid, time);
        assert_eq!(files(folder.path()).len(), 2, "another's");
    }
    withdraw(crash.pid, 0xac);
    assert_eq!(files(folder.path()), found, "taken back");
    assert!(write(&crash, 0xac, Some(&[b'p'; TEXT]), Why::Gone));
    assert!(write_elsewhere(&crash, 0xad, Why::Fault) && files(folder.path()).len() == 3);
    (0..9).for_each(|i| {
        let _ = write(&crash, i, None, Why::Gone);
    });
    assert!(files(folder.path()).len() <= MOST_RECORDS as usize, "not for ever");

    // The number belongs to somebody else by now.
    let stranger = tempfile::tempdir().unwrap();
    prepare(Constants { id: [7; 16], application: [b'a'; TEXT], version: [b'v'; TEXT] });
    let fd = std::fs::File::open(stranger.path()).unwrap();
    let number = DIRECTORY.load(Ordering::Acquire);
    // SAFETY: what a careless application does; the descriptor there is the folder's.
    unsafe { libc::dup2(std::os::fd::AsRawFd::as_raw_fd(&fd), number) };
    let before = files(folder.path()).len();
    assert!(write(&crash, 0xff, None, Why::Gone), "by the folder's name");
    assert_eq!((files(stranger.path()).len(), files(folder.path()).len()), (0, before + 1));
    forbid_records();
    // SAFETY: asks only, then closes the copy made above.
    unsafe { assert!(libc::fcntl(number, libc::F_GETFD) >= 0 && libc::close(number) == 0) };
}
