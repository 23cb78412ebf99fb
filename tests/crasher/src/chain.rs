//! Ten frames of our own, so that a test can say what a stack trace must show.

use std::hint::black_box;

/// Calls `act` below `frame_10` .. `frame_1`, each a function of its own that nothing inlines, merges or leaves by a
/// tail call.
pub(crate) fn ten_frames_deep(act: &mut dyn FnMut()) {
    frame_10(act);
    black_box("ten frames deep");
}

macro_rules! frames {
    ($($outer:ident calls $inner:ident;)*) => {$(
        #[inline(never)]
        fn $outer(act: &mut dyn FnMut()) {
            $inner(act);
            black_box(stringify!($outer));
        }
    )*};
}

frames! {
    frame_10 calls frame_9;
    frame_9 calls frame_8;
    frame_8 calls frame_7;
    frame_7 calls frame_6;
    frame_6 calls frame_5;
    frame_5 calls frame_4;
    frame_4 calls frame_3;
    frame_3 calls frame_2;
    frame_2 calls frame_1;
}

#[inline(never)]
fn frame_1(act: &mut dyn FnMut()) {
    act();
    black_box("frame_1");
}
