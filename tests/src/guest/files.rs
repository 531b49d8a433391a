//! Files, mounts and logs of a guest.

use super::{COMMAND_LIMIT, Guest, unexpected};
use crate::error::BedResult;
use crate::proto::{Call, Reply};

impl Guest {
    /// Bind-mounts `from` at `under/0` … `under/count-1`.
    ///
    /// # Errors
    /// A mount fails.
    pub fn bind_mounts(&self, from: &str, under: &str, count: u32) -> BedResult<()> {
        let call = Call::BindMounts {
            from: from.into(),
            under: under.into(),
            count,
        };
        self.control.start(call)?.wait(COMMAND_LIMIT * 4)?;
        Ok(())
    }

    /// Mounts a file system that a process should serve (`fuse`, `autofs`); none does, so that
    /// whoever touches it waits for ever.
    ///
    /// # Errors
    /// The mount fails.
    pub fn mount_unserved(&self, kind: &str, at: &str) -> BedResult<()> {
        self.call(Call::MountUnserved {
            kind: kind.into(),
            at: at.into(),
        })?;
        Ok(())
    }

    /// Makes a listening socket.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_socket(&self, path: &str) -> BedResult<()> {
        self.call(Call::MakeSocket { path: path.into() })?;
        Ok(())
    }

    /// Reads a file of the guest.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(&self, path: &str) -> BedResult<String> {
        match self.call(Call::Read { path: path.into() })? {
            Reply::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes a file of the guest.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &str, text: &str) -> BedResult<()> {
        self.call(Call::Write {
            path: path.into(),
            text: text.into(),
        })?;
        Ok(())
    }

    /// What was sent to syslog in the guest.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn syslog(&self) -> BedResult<String> {
        match self.call(Call::Syslog)? {
            Reply::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }
}
