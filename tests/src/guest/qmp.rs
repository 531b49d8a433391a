//! QEMU's machine protocol: pausing the whole guest, as Hyper-V does, and keeping its state.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::error::{BedError, BedResult, Context};

#[derive(Debug)]
pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// Takes QEMU's greeting and leaves the negotiation mode.
    pub(super) fn new(stream: UnixStream) -> BedResult<Self> {
        let mut qmp = Self {
            stream: BufReader::new(stream),
        };
        qmp.read()?;
        qmp.command("qmp_capabilities")?;
        Ok(qmp)
    }

    /// Runs a command without arguments.
    pub(super) fn command(&mut self, name: &str) -> BedResult<()> {
        self.execute(name, json!({})).map(|_| ())
    }

    /// Runs a command, and returns the line with what it says.
    pub(super) fn execute(&mut self, name: &str, arguments: Value) -> BedResult<String> {
        let request = json!({ "execute": name, "arguments": arguments });
        writeln!(self.stream.get_mut(), "{request}").doing(|| format!("sending {name} to QEMU"))?;
        loop {
            let line = self.read()?;
            if line.contains("\"return\"") {
                return Ok(line);
            }
            if line.contains("\"error\"") {
                return Err(BedError::Setup(format!("QEMU refuses {name}: {line}")));
            }
        }
    }

    fn read(&mut self) -> BedResult<String> {
        let mut line = String::new();
        self.stream
            .read_line(&mut line)
            .doing(|| "reading QEMU's answer".into())?;
        if line.is_empty() {
            return Err(BedError::Guest("QEMU has ended".into()));
        }
        Ok(line)
    }
}
