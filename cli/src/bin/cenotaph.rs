//! The program `cenotaph`; everything is in the library of this package.

fn main() -> std::process::ExitCode {
    cenotaph_cli::main()
}
