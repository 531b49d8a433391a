//! Standard output, where a reader that goes away is no error and a full disk is one; and standard error.

use std::io::{self, Write};

use serde::Serialize;

use super::CommandResult;

pub(super) fn text(text: &str) -> CommandResult {
    unless_closed(io::stdout().lock().write_all(text.as_bytes()))
}

/// One document, for a person to read as well.
pub(super) fn json(value: &impl Serialize) -> CommandResult {
    let mut output = io::stdout().lock();
    let written = serde_json::to_writer_pretty(&mut output, value).map_err(io::Error::from);
    unless_closed(written.and_then(|()| writeln!(output)))
}

/// To standard error; nothing can be done about one that is gone.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

pub(super) fn unless_closed(written: io::Result<()>) -> CommandResult {
    match written {
        // The reader, such as `head`, has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
