//! Running the machine's own tools.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::error::{BedError, BedResult, Context};

/// Runs a command to its end and returns everything it said, whatever its status.
///
/// # Errors
/// The command cannot be started.
pub fn output(command: &mut Command) -> BedResult<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .doing(|| format!("running {command:?}"))
}

/// Runs a command that must succeed and returns its standard output.
///
/// # Errors
/// The command cannot be started, or reports failure.
pub fn run(command: &mut Command) -> BedResult<String> {
    let result = output(command)?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    Err(BedError::Command {
        command: format!("{command:?}"),
        status: result.status.to_string(),
        output: said(&result),
    })
}

/// Both output streams as one text.
#[must_use]
pub fn said(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// The path of a program on this machine, also where `PATH` lacks the sbin directories.
#[must_use]
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| Path::new(dir).join(program))
        .find(|candidate| candidate.is_file())
}
