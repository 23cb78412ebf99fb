//! Compiles the ways to die that only C++ has, and programs whose frames tests look at.
#![allow(clippy::expect_used, reason = "a build that cannot go on ends so")]

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=native/ways.cpp");
    cc::Build::new()
        .cpp(true)
        .std("c++11")
        .flag("-fstack-protector-all")
        // They are what was asked for.
        .flag("-Wno-terminate")
        .warnings_into_errors(true)
        .file("native/ways.cpp")
        .compile("crasher_native");
    rust_programs();
}

/// `frames-O-fp` and `frames-O-nofp` for two levels of optimization. Here and not in the tests, as whoever runs those may have no
/// Rust compiler. The C part is a static library of its own, which the crasher is not linked with.
fn rust_programs() {
    for file in ["native/announce.c", "native/frames.rs"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let objects =
        cc::Build::new().file("native/announce.c").warnings_into_errors(true).compile_intermediates();
    let out = env::var_os("OUT_DIR").expect("Cargo sets it");
    let rustc = env::var_os("RUSTC").expect("Cargo sets it");
    for optimized in ["0", "2"] {
        for (name, frame_pointers) in [("fp", "yes"), ("nofp", "no")] {
            let program = Path::new(&out).join(format!("frames-{optimized}-{name}"));
            let mut command = Command::new(&rustc);
            command.args(["--edition", "2024", "-g", "-C", &format!("opt-level={optimized}")]);
            command.args(["-C", &format!("force-frame-pointers={frame_pointers}")]);
            command.args(["-C", "debug-assertions=no", "native/frames.rs", "-o"]).arg(program);
            for object in &objects {
                command.arg("-C").arg(format!("link-arg={}", object.display()));
            }
            assert!(command.status().expect("rustc").success(), "{command:?}");
        }
    }
}
