//! Reading another process's memory (process_vm_readv(2)).

use std::io;

/// The most pieces of one call (`UIO_MAXIOV` of the kernel).
const MOST: usize = 1024;

/// A piece of another process's memory to be read.
#[derive(Debug)]
pub(crate) struct Piece<'a> {
    /// Where it is there.
    pub(crate) address: u64,
    /// Where it goes.
    pub(crate) bytes: &'a mut [u8],
    /// How much of it was read, from the start.
    pub(crate) done: usize,
}

/// Reads as many bytes from `address` of process `pid` as are mapped, from the start; returns their number.
pub(crate) fn read_memory(pid: libc::pid_t, address: u64, buffer: &mut [u8]) -> usize {
    let mut pieces = [Piece { address, bytes: buffer, done: 0 }];
    let _ = read_pieces(pid, &mut pieces);
    pieces[0].done
}

/// Reads many pieces with as few calls as can be: one for each 1024, and one more behind each piece that ends early
/// because its memory cannot be read. `pid` may be the id of any thread.
///
/// # Errors
/// If the memory of this process cannot be read in this way at all: ESRCH, EPERM, ENOSYS. Pieces read before keep
/// what they have.
pub(crate) fn read_pieces(pid: libc::pid_t, pieces: &mut [Piece<'_>]) -> io::Result<()> {
    let mut first = 0;
    while first < pieces.len() {
        let batch = &mut pieces[first..];
        let count = batch.len().min(MOST);
        let read = match read_batch(pid, &mut batch[..count]) {
            Ok(read) => read,
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => 0,
            Err(error) => return Err(error),
        };
        let (mut left, mut whole) = (read, 0);
        for piece in &mut batch[..count] {
            piece.done = left.min(piece.bytes.len());
            left -= piece.done;
            if piece.done < piece.bytes.len() {
                break;
            }
            whole += 1;
        }
        // The kernel stops at the first byte that it cannot read; what lies behind that piece is asked for anew.
        first += if whole < count { whole + 1 } else { whole };
    }
    Ok(())
}

/// One call; returns the number of bytes read, in the order of the pieces.
fn read_batch(pid: libc::pid_t, pieces: &mut [Piece<'_>]) -> io::Result<usize> {
    let remote: Vec<libc::iovec> = pieces
        .iter()
        .map(|piece| libc::iovec { iov_base: piece.address as usize as *mut _, iov_len: piece.bytes.len() })
        .collect();
    let local: Vec<libc::iovec> = pieces
        .iter_mut()
        .map(|piece| libc::iovec { iov_base: piece.bytes.as_mut_ptr().cast(), iov_len: piece.bytes.len() })
        .collect();
    let (locals, remotes) = (local.len() as libc::c_ulong, remote.len() as libc::c_ulong);
    // SAFETY: `local` describes buffers that are borrowed for writing and do not overlap; `remote` is interpreted in the
    // other process and checked by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, local.as_ptr(), locals, remote.as_ptr(), remotes, 0) };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_behind_an_unreadable_one_are_read_too() {
        let own = std::process::id() as libc::pid_t;
        let source: Vec<u8> = (0..=255).collect();
        let at = source.as_ptr() as u64;
        let mut buffers = vec![[0u8; 8]; 2 * MOST];
        let address = |i: usize| if i % 700 == 3 { 8 } else { at + (i % 200) as u64 };
        let mut pieces: Vec<Piece<'_>> = buffers
            .iter_mut()
            .enumerate()
            .map(|(i, bytes)| Piece { address: address(i), bytes, done: 0 })
            .collect();
        read_pieces(own, &mut pieces).unwrap();
        for (i, piece) in pieces.iter().enumerate() {
            let expected = if i % 700 == 3 { 0 } else { 8 };
            assert_eq!(piece.done, expected, "{i}");
            assert!(expected == 0 || piece.bytes[..] == source[i % 200..i % 200 + 8], "{i}");
        }
        assert!(read_pieces(own, &mut []).is_ok());
        let mut one = [0; 4];
        let mut pieces = [Piece { address: at, bytes: &mut one, done: 0 }];
        assert!(read_pieces(libc::pid_t::MAX, &mut pieces).is_err());
    }
}
