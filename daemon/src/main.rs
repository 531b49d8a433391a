//! The binary: arguments in, exit status out.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    hv_vssd::cli::main(hv_vssd::cli::Arguments::parse())
}
