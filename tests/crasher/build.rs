//! Compiles the ways to die that only C++ has.

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
}
