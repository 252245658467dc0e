//! The `parlour` binary.

/// Allocation is a third of what an event costs; this allocator does it faster than the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    parlour::cli::main()
}
