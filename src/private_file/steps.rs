//! Names the moments between two changes to the disk, so that tests can stop a process exactly there.
//!
//! In an ordinary build [`at`] is nothing.

/// The process stands between two changes to the disk.
#[cfg(not(test))]
#[inline(always)]
pub(crate) const fn at(_step: &'static str) {}

#[cfg(test)]
pub(crate) use hook::{at, observe};

#[cfg(test)]
mod hook {
    use std::cell::RefCell;

    type Observer = Box<dyn FnMut(&'static str)>;

    thread_local! {
        static OBSERVER: RefCell<Option<Observer>> = const { RefCell::new(None) };
    }

    pub(crate) fn at(step: &'static str) {
        OBSERVER.with_borrow_mut(|observer| {
            if let Some(observer) = observer {
                observer(step);
            }
        });
    }

    /// Calls `observer` at each step that this thread takes from now on.
    pub(crate) fn observe(observer: impl FnMut(&'static str) + 'static) {
        OBSERVER.set(Some(Box::new(observer)));
    }
}
