//! Commands and background processes. Nothing here waits longer than asked:
//! a process blocked by a frozen file system cannot even be killed.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::proto::{Ended, JobState};

/// After the end of a process its last output is waited for this long.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn command(argv: &[String]) -> io::Result<Command> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("empty command"))?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Output so far, and how many streams are still open.
type Output = (Vec<u8>, usize);

/// Output streams, each collected by a thread of its own.
#[derive(Clone, Default)]
struct Collected(Arc<(Mutex<Output>, Condvar)>);

impl Collected {
    fn collect(&self, mut stream: impl Read + Send + 'static) {
        let this = self.clone();
        this.add(|state| state.1 += 1);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(got @ 1..) = stream.read(&mut buffer) {
                let piece = buffer.get(..got).unwrap_or_default().to_vec();
                this.add(|state| state.0.extend_from_slice(&piece));
            }
            this.add(|state| state.1 -= 1);
        });
    }

    fn add(&self, change: impl FnOnce(&mut Output)) {
        if let Ok(mut state) = self.0.0.lock() {
            change(&mut state);
            self.0.1.notify_all();
        }
    }

    fn text(&self) -> String {
        let state = self.0.0.lock();
        state.map_or_else(
            |_| String::new(),
            |state| String::from_utf8_lossy(&state.0).into_owned(),
        )
    }

    /// All of it once every writer has closed it, or what is there after a moment.
    fn last_words(&self) -> String {
        if let Ok(state) = self.0.0.lock() {
            drop(
                self.0
                    .1
                    .wait_timeout_while(state, LAST_WORDS, |state| state.1 > 0),
            );
        }
        self.text()
    }
}

/// Runs a command to its end or its limit.
pub(crate) fn exec(argv: &[String], stdin: String, limit: Duration) -> io::Result<Ended> {
    let mut child = command(argv)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (Collected::default(), Collected::default());
    child
        .stdout
        .take()
        .into_iter()
        .for_each(|s| stdout.collect(s));
    child
        .stderr
        .take()
        .into_iter()
        .for_each(|s| stderr.collect(s));
    if let Some(mut pipe) = child.stdin.take() {
        std::thread::spawn(move || pipe.write_all(stdin.as_bytes()));
    }
    let pid = pid(&child);
    let (ended, end) = channel();
    std::thread::spawn(move || ended.send(child.wait()));
    match end.recv_timeout(limit) {
        Ok(status) => Ok(Ended {
            status: status?.code(),
            timed_out: false,
            stdout: stdout.last_words(),
            stderr: stderr.last_words(),
        }),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = kill(pid, Signal::SIGKILL);
            Ok(Ended {
                status: None,
                timed_out: true,
                stdout: stdout.text(),
                stderr: stderr.text(),
            })
        }
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX))
}

struct Job {
    pid: Pid,
    ended: Arc<Mutex<Option<ExitStatus>>>,
    output: Collected,
}

/// The background processes, by name.
#[derive(Default)]
pub(crate) struct Jobs(Mutex<HashMap<String, Job>>);

impl Jobs {
    /// Starts a process and returns its id.
    pub(crate) fn spawn(
        &self,
        name: &str,
        argv: &[String],
        env: &[(String, String)],
    ) -> io::Result<i32> {
        let mut child = command(argv)?
            .envs(env.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let output = Collected::default();
        child
            .stdout
            .take()
            .into_iter()
            .for_each(|s| output.collect(s));
        child
            .stderr
            .take()
            .into_iter()
            .for_each(|s| output.collect(s));
        let job = Job {
            pid: pid(&child),
            ended: Arc::default(),
            output,
        };
        let raw = job.pid.as_raw();
        let ended = job.ended.clone();
        std::thread::spawn(move || {
            let status = child.wait().ok();
            if let Ok(mut ended) = ended.lock() {
                *ended = status;
            }
        });
        let mut jobs = self.0.lock().map_err(|_| io::Error::other("poisoned"))?;
        jobs.insert(name.to_owned(), job);
        Ok(raw)
    }

    fn with<T>(&self, name: &str, look: impl FnOnce(&Job) -> io::Result<T>) -> io::Result<T> {
        let jobs = self.0.lock().map_err(|_| io::Error::other("poisoned"))?;
        look(
            jobs.get(name)
                .ok_or_else(|| io::Error::other(format!("no process named {name}")))?,
        )
    }

    /// Sends a signal; one that has ended is left alone.
    pub(crate) fn signal(&self, name: &str, signal: i32) -> io::Result<()> {
        self.with(name, |job| {
            if job.ended.lock().is_ok_and(|ended| ended.is_some()) {
                return Ok(());
            }
            Ok(kill(job.pid, Signal::try_from(signal)?)?)
        })
    }

    /// Whether it runs, how it ended, what it said.
    pub(crate) fn state(&self, name: &str) -> io::Result<JobState> {
        self.with(name, |job| {
            let ended = job.ended.lock().map_or(None, |ended| *ended);
            Ok(JobState {
                pid: job.pid.as_raw(),
                running: ended.is_none(),
                status: ended.and_then(|status| status.code()),
                output: if ended.is_none() {
                    job.output.text()
                } else {
                    job.output.last_words()
                },
            })
        })
    }
}
