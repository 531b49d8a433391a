//! The binary: arguments in, exit status out.

use std::process::ExitCode;

fn main() -> ExitCode {
    hv_vssd::cli::main(hv_vssd::cli::arguments())
}
