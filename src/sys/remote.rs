//! Reading another process's memory (process_vm_readv(2)).

/// Reads as many bytes from `address` of process `pid` as are mapped, from the start; returns their number.
pub(crate) fn read_memory(pid: libc::pid_t, address: u64, buffer: &mut [u8]) -> usize {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        let local = libc::iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        let Some(start) = address.checked_add(done as u64).and_then(|a| usize::try_from(a).ok()) else {
            break;
        };
        let remote = libc::iovec { iov_base: start as *mut _, iov_len: rest.len() };
        // SAFETY: `local` describes `rest`, which is writable; `remote` is interpreted in the other process and
        // checked by the kernel.
        let count = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
        if count <= 0 {
            break;
        }
        done += count as usize;
    }
    done
}
