//! Opaque handles: a box on this side, a pointer to an incomplete type on the other.

use crate::status::Failure;
use crate::text::not_null;

/// Types that C holds by pointer. Only those made by [`give`] are ever taken back.
pub(crate) trait Handle: Sized {
    /// The argument's name in messages.
    const NAME: &'static str;
}

/// Makes a handle; C owns it from now on.
pub(crate) fn give<T: Handle>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// Takes a handle back; the pointer is dead from now on.
///
/// # Safety
/// `handle` is NULL, or came from [`give`], was not taken before, and nobody else uses it.
pub(crate) unsafe fn take<T: Handle>(handle: *mut T) -> Result<Box<T>, Failure> {
    not_null(handle, T::NAME)?;
    // SAFETY: `give` made it with `Box::into_raw`; the rest is this function's own contract.
    Ok(unsafe { Box::from_raw(handle) })
}

/// Lends a handle for the length of a call.
///
/// # Safety
/// `handle` is NULL, or came from [`give`], was not taken since, and nobody else uses it during `'a`.
pub(crate) unsafe fn lend<'a, T: Handle>(handle: *mut T) -> Result<&'a mut T, Failure> {
    not_null(handle, T::NAME)?;
    // SAFETY: a live box of ours, so aligned and initialised; that it is the only use is this function's own contract.
    Ok(unsafe { &mut *handle })
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::status::cenotaph_status;

    struct Counted(Rc<()>);
    impl Handle for Counted {
        const NAME: &'static str = "counted";
    }

    #[test]
    fn is_lent_and_taken_once() {
        let rc = Rc::new(());
        let handle = give(Counted(Rc::clone(&rc)));
        // SAFETY: made above and taken once.
        unsafe {
            assert_eq!(Rc::strong_count(&lend(handle).unwrap_or_else(|_| unreachable!()).0), 2);
            drop(take(handle));
            assert_eq!(Rc::strong_count(&rc), 1);
            let refused = take::<Counted>(std::ptr::null_mut()).err();
            assert_eq!(refused, Some(Failure::new(cenotaph_status::NullArgument, "`counted` is NULL")));
            assert!(lend::<Counted>(std::ptr::null_mut()).is_err());
        }
    }
}
