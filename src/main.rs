//! The binary of roomcast: see `roomcast --help`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use roomcast::cli::{Cli, Failure};
use tikv_jemallocator::Jemalloc;

/// The memory allocator of the binary is jemalloc. It keeps small and large blocks apart and gives unused memory back
/// to the kernel. With the allocator of the C library, the buffers of polls that have ended leave gaps in the heap;
/// benchmarks/NOTES.md has the figures.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Options of jemalloc: a thread in the background returns memory that was unused for a second.
#[expect(unsafe_code, reason = "jemalloc reads its options from this symbol")]
// SAFETY: the symbol belongs to jemalloc, which reads a pointer to text that ends with a zero byte.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version texts are printed as answers, not as errors. If the output is closed, there is nobody to
            // tell.
            _ = answer.print();
            return if answer.use_stderr() { Failure::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If standard error is closed, the error cannot be reported.
            _ = writeln!(std::io::stderr(), "{failure}");
            failure.code()
        }
    }
}
