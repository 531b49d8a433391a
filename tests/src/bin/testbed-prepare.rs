//! Prepares what the guests are made of. Safe to run again, and several at once.

use std::process::ExitCode;

use tests::assets::{Kernel, prepare};

fn main() -> ExitCode {
    for kernel in Kernel::ALL {
        match prepare(kernel) {
            Ok(done) => println!("guest {}: {done}", kernel.series()),
            Err(error) => {
                eprintln!("guest {}: {error}", kernel.series());
                return ExitCode::FAILURE;
            }
        }
    }
    if !nix::unistd::geteuid().is_root() {
        println!("Debian: not made, that needs root");
        return ExitCode::SUCCESS;
    }
    for variant in tests::debian::SETS {
        match variant.prepare() {
            Ok(done) => println!("Debian {done}"),
            Err(error) => {
                eprintln!("Debian {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
