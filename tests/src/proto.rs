//! What the bed and the guest's init say to each other: JSON in length-prefixed frames.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// Name of the virtio-serial port for requests to the guest's init.
pub const CONTROL_PORT: &str = "hv-testbed.control";
/// Name of the virtio-serial port relayed to the host's end of the VMBus channel.
pub const VMBUS_PORT: &str = "hv-testbed.vmbus";
/// In a booted system: the directory of the stand-in bus and of hv_utils, in memory.
pub const MODULES_DIR: &str = "/run/hv-testbed";
/// In a booted system: the guest's server and helper, in memory.
pub const TESTGUEST: &str = "/run/hv-testbed/hv-testguest";
/// In the guest: when the host's packets passed, a line each: `in` or `out`, operation, nanoseconds since boot.
pub const HOST_TIMES: &str = "/run/host-times";

/// No frame is longer than this.
const MAX_FRAME: u32 = 64 << 20;

/// A request, answered by the [`Response`] with the same number, in any order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The request's number.
    pub id: u64,
    /// What to do.
    pub call: Call,
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// Number of the request; 0 is the guest's greeting after boot.
    pub id: u64,
    /// What came of it, or what went wrong.
    pub result: Result<Reply, String>,
}

/// What the guest's init can do. Each call runs in a thread of its own.
#[derive(Debug, Serialize, Deserialize)]
pub enum Call {
    /// Run a command to its end.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// Its standard input.
        stdin: String,
        /// It is sent SIGKILL, and not waited for, after this time.
        limit_ms: u64,
    },
    /// Start a background process under a name.
    Spawn {
        /// Name for later calls; a finished one may be replaced.
        job: String,
        /// Program and arguments.
        argv: Vec<String>,
        /// Variables added to its environment.
        env: Vec<(String, String)>,
    },
    /// Send a signal to a background process.
    Signal {
        /// Its name.
        job: String,
        /// The signal's number.
        signal: i32,
    },
    /// Ask after a background process.
    Job {
        /// Its name.
        job: String,
    },
    /// Read a file (as text).
    Read {
        /// Its path.
        path: String,
    },
    /// Write a file.
    Write {
        /// Its path.
        path: String,
        /// Its new content.
        text: String,
    },
    /// Load a module from a file, symbol versions and version magic ignored.
    LoadModule {
        /// The `.ko` file.
        path: String,
        /// Its parameters.
        parameters: String,
    },
    /// Relay packets between [`VMBUS_PORT`] and the stand-in bus.
    Relay,
    /// Write a word to the stand-in bus's control device; returns when the driver has obeyed.
    VmbusControl {
        /// `probe`, `remove`, `suspend` or `resume`.
        word: String,
    },
    /// The state of a writer.
    Writer {
        /// Its state file.
        state: String,
    },
    /// Make many bind mounts at once: `from` at `under/0` … `under/count-1`.
    BindMounts {
        /// What is bound.
        from: String,
        /// Directory of the mount points.
        under: String,
        /// How many.
        count: u32,
    },
    /// Mount a file system that a process should serve, and serve nothing.
    MountUnserved {
        /// `fuse` or `autofs`.
        kind: String,
        /// The mount point, made if missing.
        at: String,
    },
    /// Make a socket.
    MakeSocket {
        /// Its path.
        path: String,
    },
    /// The messages sent to /dev/log since boot.
    Syslog,
}

/// What the guest's init answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// The guest has booted and serves requests.
    Ready,
    /// A command has ended, or its time was up.
    Exec(Ended),
    /// A background process runs.
    Spawned {
        /// Its process id in the guest.
        pid: i32,
    },
    /// The state of a background process.
    Job(JobState),
    /// A file's content or collected messages.
    Text(String),
    /// The state of a writer.
    Writer(WriterState),
}

/// How a command ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// Exit status; `None` for a signal or when its time was up.
    pub status: Option<i32>,
    /// Its time was up.
    pub timed_out: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// The state of a background process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobState {
    /// Its process id in the guest.
    pub pid: i32,
    /// It has not ended.
    pub running: bool,
    /// Exit status once it has ended of its own accord.
    pub status: Option<i32>,
    /// Both output streams so far.
    pub output: String,
}

/// The state of a writer, see [`crate::writer`].
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct WriterState {
    /// Records fsynced so far: numbers 1 to this one.
    pub synced: u64,
    /// Longest time one write and fsync took, in milliseconds.
    pub worst_ms: u64,
    /// How long the current write has been running, in milliseconds; 0 between writes.
    pub busy_ms: u64,
}

/// Writes one frame: a little-endian length, then the bytes.
///
/// # Errors
/// The stream's.
pub fn write_frame(out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(payload.len())
        .ok()
        .filter(|len| *len <= MAX_FRAME)
        .ok_or_else(|| io::Error::other("frame too long"))?;
    let mut frame = Vec::with_capacity(payload.len() + 4);
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(payload);
    out.write_all(&frame)?;
    out.flush()
}

/// Reads one frame.
///
/// # Errors
/// The stream's, or a length that cannot be.
pub fn read_frame(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    input.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_FRAME {
        return Err(io::Error::other("frame too long"));
    }
    let mut payload = vec![0; len as usize];
    input.read_exact(&mut payload)?;
    Ok(payload)
}
