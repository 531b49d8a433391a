//! What the agent keeps and tells of its checkpoints: history, journal, the file for Prometheus, a line for systemd.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::note::Note;
use crate::quiesce::Report;
use crate::quiesce::error::with_causes;
use crate::quiesce::report::PhaseName;
use crate::status::{Cause, History, journal};
use crate::telemetry::journal::Journal;
use crate::telemetry::{log, service, textfile};

/// How long the end of the process waits for the last word to Prometheus.
const FINISH_LIMIT: Duration = Duration::from_secs(1);

/// What the agent keeps and tells of its checkpoints.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) history: History,
    /// The start of the agent.
    pub(super) started: Moment,
    journal: Option<Journal>,
    textfile: Option<TextFile>,
    /// The number of the last checkpoint that was begun.
    number: u64,
    /// Checkpoints whose reports have not come, and why they count as failed, whatever those say.
    open: Vec<(u64, Option<Note>)>,
    /// How the last one ended.
    last: Option<String>,
}

/// A point in time, for people and for programs.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) text: String,
    pub(super) unix: f64,
}

impl Moment {
    pub(super) fn now() -> Self {
        let unix = SystemTime::UNIX_EPOCH.elapsed();
        Self {
            text: log::now(),
            unix: unix.map_or(0.0, |time| (time.as_secs_f64() * 1e3).round() / 1e3),
        }
    }
}

impl Records {
    pub(super) fn new() -> Self {
        Self {
            history: History::default(),
            started: Moment::now(),
            journal: None,
            textfile: None,
            number: 0,
            open: Vec::new(),
            last: None,
        }
    }

    pub(super) fn use_journal(&mut self, journal: Journal) {
        self.journal = Some(journal);
    }

    pub(super) fn use_textfile(&mut self, path: Option<PathBuf>) {
        let known = self.textfile.as_ref().map(|file| &file.path);
        if known != path.as_ref() {
            self.textfile = path.map(|path| TextFile {
                path,
                slot: Arc::default(),
            });
        }
    }

    pub(super) fn has_textfile(&self) -> bool {
        self.textfile.is_some()
    }

    /// Replaces the file for Prometheus, in a thread: the file may lie on a disk that does not answer.
    pub(super) fn write_textfile(&self, text: String) {
        if let Some(file) = &self.textfile {
            file.write(text);
        }
    }

    /// Waits, if briefly, for the file that is being written.
    pub(super) fn finish_textfile(&self) {
        if let Some(file) = &self.textfile {
            file.finish();
        }
    }

    /// A checkpoint begins, under this number.
    pub(super) fn begin(&mut self) -> u64 {
        self.number += 1;
        self.open.push((self.number, None));
        self.number
    }

    /// The session has told something of the last checkpoint.
    pub(super) fn note(&mut self, note: Note) {
        if let Some((_, spoilt)) = self.open.last_mut().filter(|_| note.spoils()) {
            spoilt.get_or_insert(note);
        }
    }

    /// The engine's report has come: all that is known of the checkpoint is, and the host has its answer.
    pub(super) fn done(&mut self, number: u64, report: &mut Report, cause: Option<Cause>) {
        let mut cause = cause;
        let at = self.open.iter().position(|(open, _)| *open == number);
        let spoilt = at.and_then(|at| self.open.remove(at).1);
        if let Some(note) = spoilt {
            // Before what the engine says of it, which is only what followed.
            report.fail(note.to_string());
            report.failures.rotate_right(1);
            cause = Some(if report.last(PhaseName::Hold).is_some() {
                Cause::EndedEarly
            } else {
                Cause::GivenUp
            });
        } else if cause.is_none() && !report.is_clean() {
            cause = Some(Cause::Thaw);
        }
        if let Some(journal) = &self.journal {
            // A journal that takes none loses this one: nothing waits for it.
            let _ = journal.send(&journal::fields(report, cause));
        }
        let outcome = match (report.is_clean(), report.flush_only) {
            (true, true) => "flushed only, crash-consistent",
            (true, false) => "success",
            (false, _) => "FAILURE",
        };
        let at: String = report.started.chars().take(19).collect();
        self.last = Some(format!(
            "last checkpoint {} UTC: {outcome}",
            at.replace('T', " ")
        ));
        self.history.record(report.clone(), cause);
    }

    /// Tells systemd how the service is; never during a hold.
    pub(super) fn tell_systemd(&self, how: &str) {
        match &self.last {
            Some(last) => service::status(&format!("{how}; {last}")),
            None => service::status(how),
        }
    }
}

/// A file that one thread at a time writes, always the latest text.
#[derive(Debug)]
struct TextFile {
    path: PathBuf,
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    text: Option<String>,
    writing: bool,
    complained: bool,
}

impl TextFile {
    /// A disk that does not answer must not keep the process from ending.
    fn finish(&self) {
        let deadline = Instant::now() + FINISH_LIMIT;
        let writing = || {
            let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            slot.writing
        };
        while writing() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn write(&self, text: String) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.text = Some(text);
        if std::mem::replace(&mut slot.writing, true) {
            return;
        }
        let (path, theirs) = (self.path.clone(), Arc::clone(&self.slot));
        let thread = thread::Builder::new()
            .name("metrics".to_owned())
            .stack_size(64 * 1024);
        if thread.spawn(move || write_latest(&path, &theirs)).is_err() {
            slot.writing = false;
        }
    }
}

fn write_latest(path: &std::path::Path, slot: &Mutex<Slot>) {
    let lock = || slot.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let text = {
            let mut slot = lock();
            let text = slot.text.take();
            slot.writing = text.is_some();
            text
        };
        let Some(text) = text else { return };
        let written = textfile::replace(path, &text);
        let complained = std::mem::replace(&mut lock().complained, written.is_err());
        if let Err(error) = written {
            if !complained {
                tracing::warn!(
                    "the metrics cannot be written to {}: {}; its directory must exist and belong to root",
                    path.display(),
                    with_causes(&error)
                );
            }
        }
    }
}
