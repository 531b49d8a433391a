//! Prepares what the guests are made of. Safe to run again, and several at once.

use std::process::ExitCode;

use tests::assets::{Kernel, prepare};
use tests::error::BedResult;
use tests::package;

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
    match systems() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Debian {error}");
            ExitCode::FAILURE
        }
    }
}

/// The Debian systems, and for hv-vssd the same with its package.
fn systems() -> BedResult<()> {
    for revision in package::REVISIONS {
        println!("package {}", package::deb(revision)?.display());
    }
    let [first, ..] = package::REVISIONS;
    let package = package::deb(first)?;
    for variant in tests::debian::SETS {
        println!("Debian {}", variant.prepare()?);
        variant.with_package(&package)?;
    }
    Ok(())
}
