//! The program `cenotaph`; everything is in the library of this package.

fn main() -> std::process::ExitCode {
    // The demonstration's victim is this program, and so is that victim's monitor.
    cenotaph::monitor_entry();
    cenotaph_cli::main()
}
