//! Programs that hold write access to a file system while they sleep, and what is seen of them.

use std::time::Duration;

use crate::error::{BedError, BedResult, Failure, Step};
use crate::guest::{Guest, poll_until};
use crate::promise;

/// A program falls asleep, a call comes to wait, within this time on a busy machine.
const ASLEEP: Duration = Duration::from_secs(20);

/// In the kernel's stack of a task that waits for more from a pipe, or for a FUSE server.
const ASLEEP_IN: [&str; 3] = ["pipe_wait_readable", "splice_from_pipe_next", "fuse_"];

/// Where the FUSE server without answers is mounted.
pub const SILENT: &str = "/mnt/silent";

/// A running `hv-testguest sleeper`.
#[derive(Debug)]
pub struct Sleeper {
    job: String,
    pid: i32,
    /// What it writes.
    pub file: String,
    source: String,
}

/// How many threads a sleeper has, and who runs it.
#[derive(Debug, Clone, Copy)]
pub struct As {
    /// The user.
    pub uid: u32,
    /// One of them sleeps.
    pub threads: u32,
}

/// A plain program of root's.
pub const ROOT: As = As { uid: 0, threads: 1 };

/// A program of an ordinary user's, with several threads.
pub const NOBODY: As = As {
    uid: 65534,
    threads: 4,
};

impl Sleeper {
    /// Starts one that gets `x` of a pipe, writes it to a file in a directory and sleeps until there is more:
    /// `how` is `splice` or `copy`.
    ///
    /// # Errors
    /// It does not start, or does not sleep.
    pub fn at_a_pipe(guest: &Guest, how: &str, directory: &str, user: As) -> Step<Self> {
        let source = format!("/run/pipe{}-{how}", directory.replace('/', "-"));
        guest.sh(&format!("rm -f {source}; mkfifo -m 666 {source}"))?;
        Self::start(guest, how, directory, source, user)
    }

    /// Starts one that writes a file which a silent FUSE server has, see [`serve_nothing`]: `how` is `map` or `sendfile`.
    ///
    /// # Errors
    /// It does not start, or does not sleep.
    pub fn at_a_silent_server(guest: &Guest, how: &str, directory: &str, user: As) -> Step<Self> {
        Self::start(guest, how, directory, format!("{SILENT}/file"), user)
    }

    fn start(guest: &Guest, how: &str, directory: &str, source: String, user: As) -> Step<Self> {
        let job = format!("sleeper {how} {directory}");
        let file = format!("{directory}/slept-{how}");
        let (uid, threads) = (user.uid.to_string(), user.threads.to_string());
        let pid = guest.spawn(
            &job,
            &[
                "/sbin/hv-testguest",
                "sleeper",
                how,
                &file,
                &source,
                &uid,
                &threads,
            ],
        )?;
        let sleeper = Self {
            job,
            pid,
            file,
            source,
        };
        sleeper.falls_asleep(guest)?;
        Ok(sleeper)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    fn falls_asleep(&self, guest: &Guest) -> Step<()> {
        let mut seen = String::new();
        let asleep = poll_until(ASLEEP, || {
            let state = guest.job(&self.job)?;
            if !state.running {
                let said = format!("{} has ended: {}", self.job, state.output);
                return Err(Failure::Bed(BedError::Guest(said)));
            }
            seen = stacks(guest, &[self.pid])?;
            Ok((ASLEEP_IN.iter().any(|frame| seen.contains(frame))).then_some(()))
        })?;
        asleep.ok_or_else(|| BedError::Guest(format!("{} does not sleep: {seen}", self.job)).into())
    }

    /// It runs, and sleeps as it did.
    ///
    /// # Errors
    /// It has ended, or does something else.
    pub fn lives(&self, guest: &Guest) -> Step<()> {
        let state = guest.job(&self.job)?;
        promise!(state.running, "{} has ended: {}", self.job, state.output);
        self.falls_asleep(guest)
    }

    /// What comes out of its pipe now ends up in its file, behind the `x`.
    ///
    /// # Errors
    /// It does not.
    pub fn writes_what_comes(&self, guest: &Guest, text: &str) -> Step<()> {
        guest.sh(&format!("printf %s '{text}' > {}", self.source))?;
        let expected = format!("x{text}");
        let mut found = String::new();
        let whole = poll_until(ASLEEP, || {
            found = guest.read(&self.file)?;
            Ok::<_, Failure>((found == expected).then_some(()))
        })?;
        promise!(
            whole.is_some(),
            "{} holds {found:?} in place of {expected:?}",
            self.file
        );
        self.lives(guest)
    }
}

/// The kernel's stacks of all threads of processes; those that have ended are left out.
fn stacks(guest: &Guest, pids: &[i32]) -> BedResult<String> {
    let files: String = pids
        .iter()
        .map(|pid| format!("/proc/{pid}/task/*/stack "))
        .collect();
    guest.sh(&format!("cat {files} 2> /dev/null || :"))
}

/// Waits until a process of these names is in FIFREEZE, or in another freeze, and has not come back.
///
/// # Errors
/// None is.
pub fn waits_in_a_freeze(guest: &Guest, names: &str) -> Step<()> {
    let inside = poll_until(ASLEEP, || {
        let stacks = guest.sh(&format!(
            "for pid in $(pidof {names}); do cat /proc/$pid/task/*/stack 2> /dev/null || :; done"
        ))?;
        Ok::<_, Failure>(stacks.contains("freeze_super").then_some(()))
    })?;
    inside.ok_or_else(|| BedError::Guest(format!("no process of {names} waits in a freeze")).into())
}

/// Mounts a FUSE file system at [`SILENT`], whose file can be mapped, and never read.
///
/// # Errors
/// It is not served.
pub fn serve_nothing(guest: &Guest) -> Step<()> {
    guest.spawn(
        "silent-fuse",
        &["/sbin/hv-testguest", "silent-fuse", SILENT],
    )?;
    let served = poll_until(ASLEEP, || {
        let ended = guest.exec(
            &["/bin/sh", "-c", &format!("test -f {SILENT}/file")],
            Duration::from_secs(5),
        )?;
        Ok::<_, Failure>((ended.status == Some(0)).then_some(()))
    })?;
    served.ok_or_else(|| {
        BedError::Guest(format!(
            "the FUSE server does not serve: {:?}",
            guest.job("silent-fuse")
        ))
        .into()
    })
}

/// Ends all waiting for that server, as an administrator can.
///
/// # Errors
/// The kernel has no such switch.
pub fn abort_fuse(guest: &Guest) -> BedResult<()> {
    guest.sh(
        "at=/sys/fs/fuse/connections; grep -q fusectl /proc/mounts || mount -t fusectl none $at
        for abort in $at/*/abort; do echo 1 > $abort; done",
    )?;
    Ok(())
}

/// A write(2) of so many MB that a slow disk takes a while for, as a background process `write`: it holds write access
/// for all that time. Little memory may be dirty, so that the call itself waits for the disk.
///
/// # Errors
/// It does not come to wait.
pub fn write_slowly(guest: &Guest, file: &str, mib: u32) -> Step<()> {
    guest.sh("echo 1048576 > /proc/sys/vm/dirty_background_bytes; echo 2097152 > /proc/sys/vm/dirty_bytes")?;
    // The buffer is made, and what it is made of is known, before the call.
    let pid = guest.spawn(
        SLOW_WRITE,
        &[
            "/bin/dd",
            "if=/dev/zero",
            &format!("of={file}"),
            &format!("bs={mib}M"),
            "count=1",
        ],
    )?;
    let waits = poll_until(ASLEEP, || {
        let stack = stacks(guest, &[pid])?;
        Ok::<_, Failure>(stack.contains("balance_dirty_pages").then_some(()))
    })?;
    waits.ok_or_else(|| {
        BedError::Guest(format!(
            "the write does not wait for its disk: {:?}",
            guest.job(SLOW_WRITE)
        ))
        .into()
    })
}

/// The background process of [`write_slowly`].
pub const SLOW_WRITE: &str = "write";

/// Waits for the end of that write.
///
/// # Errors
/// It has not ended within a minute, or failed.
pub fn written(guest: &Guest) -> Step<()> {
    let state = crate::steps::ended(guest, SLOW_WRITE, Duration::from_secs(60))?;
    promise!(
        state.status == Some(0),
        "the large write failed: {}",
        state.output
    );
    Ok(())
}
