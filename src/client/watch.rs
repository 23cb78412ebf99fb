//! Threads that are watched for hangs.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::{Client, client};
use crate::capture::{allow_monitor, is_armed};
use crate::error::Result;
use crate::protocol;
use crate::sys::process;

/// A shorter limit would report what the scheduler does.
const SHORTEST: Duration = Duration::from_millis(20);

/// Watches the calling thread until the returned value is dropped: if it does not [`beat`](Watch::beat) for `limit`, a
/// report is made of the process as it is, with this thread's frames first and the reason
/// [`Hang`](crate::report::Reason::Hang), and the process lives on. Once a hang: the next beat begins anew. A hang is
/// noticed within one and a quarter of its limit; time in which the process is stopped (job control, a debugger) or the
/// machine sleeps does not count.
///
/// `limit` is at least 20 ms (a shorter one counts as 20 ms). 32 threads can be watched at once. While one is, the monitor
/// wakes up four times within the limit, and never otherwise.
///
/// Looking at the process stops all its threads for some milliseconds, and blocking calls such as `epoll_wait` may return
/// EINTR, as with [`capture`](crate::capture).
///
/// # Errors
/// [`Error::Limit`](crate::Error::Limit), [`Error::NotInstalled`](crate::Error::NotInstalled),
/// [`Error::MonitorUnavailable`](crate::Error::MonitorUnavailable).
pub fn watch_thread(limit: Duration) -> Result<Watch> {
    let client = client()?;
    let limit_ms = u64::try_from(limit.max(SHORTEST).as_millis()).unwrap_or(u64::MAX);
    let slot = client.blackbox.watch(process::gettid().unsigned_abs(), limit_ms)?;
    let watch = Watch { client, slot, _thread: PhantomData };
    allow_monitor();
    watch.client.tell(&protocol::watches_changed())?;
    Ok(watch)
}

/// Keeps a thread watched. It stays on its thread.
#[must_use = "dropping it ends the watch"]
pub struct Watch {
    client: Arc<Client>,
    slot: usize,
    _thread: PhantomData<*const ()>,
}

impl Watch {
    /// This thread is alive. Stores a word in memory: no system call, no allocation, no lock.
    pub fn beat(&self) {
        // A forked child shares the memory, and must not beat for its parent.
        if is_armed() {
            self.client.blackbox.beat(self.slot);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if is_armed() {
            self.client.blackbox.unwatch(self.slot);
            // The monitor would find out by itself, but later.
            let _ = self.client.tell(&protocol::watches_changed());
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("slot", &self.slot).finish()
    }
}
