//! The `parlour` binary.

fn main() -> std::process::ExitCode {
    parlour::cli::main()
}
