//! Names for targets, so that source files say what they need instead of listing systems.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = |part: &str| std::env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    let (os, arch) = (target("OS"), target("ARCH"));
    for (alias, holds) in [
        // Signals, ptrace, memfd: the monitor as it is built so far.
        ("cenotaph_linux", os == "linux"),
        // Registers of the crash context are understood.
        ("cenotaph_x86_64", arch == "x86_64"),
    ] {
        println!("cargo::rustc-check-cfg=cfg({alias})");
        if holds {
            println!("cargo::rustc-cfg={alias}");
        }
    }
    println!("cargo::rustc-check-cfg=cfg(fuzzing)");
    // The game of examples/pmodules exports its globals, for pmodules to find them by name.
    for symbol in ["player_account", "current_game_state"] {
        println!("cargo::rustc-link-arg-examples=-Wl,--export-dynamic-symbol={symbol}");
        println!("cargo::rustc-link-arg-tests=-Wl,--export-dynamic-symbol={symbol}");
        println!("cargo::rustc-link-arg-benches=-Wl,--export-dynamic-symbol={symbol}");
    }
}
