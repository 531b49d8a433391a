//! Writers in a guest, and whether a write sleeps.

use nix::sys::signal::Signal;

use super::{COMMAND_LIMIT, Guest, poll_until, unexpected};
use crate::error::{BedError, BedResult};
use crate::proto::{Call, Reply, WriterState};

/// In the kernel's stack of a task that waits for a thaw (`sb_start_write`), and of no other.
const WAITS_FOR_THAW: [&str; 2] = ["percpu_rwsem_wait", "__percpu_down_read"];

impl Guest {
    /// Starts a writer in a directory of the guest and waits for its first record.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_writer(&self, directory: &str) -> BedResult<()> {
        let state = writer_state(directory);
        let writer = ["/sbin/hv-testguest", "writer", directory, &state];
        self.spawn(&format!("writer {directory}"), &writer)?;
        self.await_writer(directory)
    }

    /// Starts a writer on an ext4 that no mount table shows, and waits for its first record: `how` is `chroot`, `thread` or `detached`, see
    /// `hv-testguest out-of-sight`. It goes by the name of a directory, where the disk may be mounted in a namespace of its own.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_writer_out_of_sight(
        &self,
        how: &str,
        disk: &str,
        directory: &str,
    ) -> BedResult<()> {
        let state = writer_state(directory);
        self.sh(&format!("mkdir -p {directory}"))?;
        let writer = [
            "/sbin/hv-testguest",
            "out-of-sight",
            how,
            disk,
            directory,
            &state,
        ];
        self.spawn(&format!("writer {directory}"), &writer)?;
        self.await_writer(directory)
    }

    fn await_writer(&self, directory: &str) -> BedResult<()> {
        let started = poll_until(COMMAND_LIMIT, || {
            let state = self.writer(directory)?;
            Ok::<_, BedError>((state.synced > 0).then_some(()))
        })?;
        started.ok_or_else(|| BedError::Timeout {
            what: format!("a first record in {directory}"),
            limit: COMMAND_LIMIT,
        })
    }

    /// Pauses the writer in a directory between two instructions, or lets it go on.
    ///
    /// # Errors
    /// There is none.
    pub fn pause_writer(&self, directory: &str, pause: bool) -> BedResult<()> {
        let signal = if pause {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        self.signal(&format!("writer {directory}"), signal)
    }

    /// The state of the writer in a directory.
    ///
    /// # Errors
    /// There is none.
    pub fn writer(&self, directory: &str) -> BedResult<WriterState> {
        let state = writer_state(directory);
        match self.call(Call::Writer { state })? {
            Reply::Writer(state) => Ok(state),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether a process waits for a thaw, by its stack in the kernel.
    fn waits_for_thaw(&self, pid: i32) -> bool {
        let stack = self.read(&format!("/proc/{pid}/stack")).unwrap_or_default();
        WAITS_FOR_THAW.iter().any(|frame| stack.contains(frame))
    }

    /// Whether the writer in a directory waits for a thaw at this moment.
    ///
    /// # Errors
    /// There is no such writer.
    pub fn writer_sleeps(&self, directory: &str) -> BedResult<bool> {
        let job = format!("writer {directory}");
        Ok(self.waits_for_thaw(self.job(&job)?.pid))
    }

    /// Whether a write in a directory sleeps, as it does on a frozen file system: a new file
    /// is made there by a process of its own, which either ends or waits for a thaw. The process is left behind and ends after the thaw.
    ///
    /// # Errors
    /// The write fails, or neither happens in time.
    pub fn write_sleeps(&self, directory: &str) -> BedResult<bool> {
        let job = format!("probe {directory}");
        let file = format!("{directory}/.probe");
        let pid = self.spawn(&job, &["/bin/touch", &file])?;
        let sleeps = poll_until(COMMAND_LIMIT, || {
            let state = self.job(&job)?;
            match (state.running, state.status) {
                (true, _) => Ok(self.waits_for_thaw(pid).then_some(true)),
                (false, Some(0)) => Ok(Some(false)),
                _ => Err(BedError::Guest(format!("touch {file}: {}", state.output))),
            }
        })?;
        sleeps.ok_or_else(|| {
            let stack = self.read(&format!("/proc/{pid}/stack"));
            BedError::Timeout {
                what: format!("an end of touch {file}, now at {stack:?},"),
                limit: COMMAND_LIMIT,
            }
        })
    }
}

fn writer_state(directory: &str) -> String {
    format!("/run/writer{}", directory.replace('/', "-"))
}
