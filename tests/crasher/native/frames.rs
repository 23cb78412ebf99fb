//! Dies several calls deep, by `WAY MAIL THREADS`. For tests/same_frames_native.rs, with frame pointers and without.

use std::hint::black_box;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    for _ in 1..arguments[3].parse().unwrap() {
        let text = arguments[2].clone();
        std::thread::spawn(move || wait(&text, 3));
    }
    black_box(deeper(&arguments[1], &arguments[2], 6));
}

#[inline(never)]
fn wait(text: &str, depth: u32) {
    let local = format!("thread of {text} at depth {depth}");
    match depth {
        0 => loop {
            std::thread::park();
        },
        _ => wait(black_box(&local), depth - 1),
    }
    black_box(local);
}

#[inline(never)]
fn deeper(way: &str, text: &str, depth: u32) -> u32 {
    let local = black_box(format!("login of {text} at depth {depth}"));
    let found = match depth {
        0 => die(way),
        _ => deeper(way, black_box(text), depth - 1),
    };
    black_box(&local);
    found + depth
}

#[inline(never)]
fn die(way: &str) -> u32 {
    match way {
        // SAFETY: none: it is to fault.
        "null" => unsafe { black_box(std::ptr::null::<u32>()).read_volatile() },
        "abort" => std::process::abort(),
        "panic-abort" => panics(),
        "sort" => {
            let mut numbers: Vec<u32> = (0..64).rev().collect();
            numbers.sort_by(|a, b| {
                let seven = *a == 7 || *b == 7;
                if seven { die("null").cmp(b) } else { a.cmp(b) }
            });
            numbers[0]
        }
        other => unreachable!("{other}"),
    }
}

/// A panic that cannot unwind.
#[inline(never)]
extern "C" fn panics() -> u32 {
    let nothing: Option<u32> = black_box(None);
    nothing.unwrap()
}
