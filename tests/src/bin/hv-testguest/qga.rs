//! A client of the QEMU guest agent.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::Outcome;
use crate::clock::now;

/// Runs one command and prints when it was sent, when it was answered, and the answer.
pub(crate) fn run(socket: &str, command: &str) -> Outcome {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    let sent = now()?;
    writeln!(stream.get_mut(), "{{\"execute\":\"{command}\"}}")?;
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    println!("{sent} {} {}", now()?, answer.trim());
    Ok(())
}
