//! Hooks as processes: what they are told, how long they may take, what they may leave behind, and that each gets its thaw.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod calls;
mod limits;
mod record;
mod refused;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use hv_vssd::config;
use hv_vssd::hooks::discover::Places;
use hv_vssd::hooks::{Applications, Checkpoint, HookError, Hooks, Run, Way};
use tempfile::TempDir;

/// Longer than anything here takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Machine {
    directory: TempDir,
    settings: config::Hooks,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let hooks = directory.path().join("hooks.d");
        fs::create_dir(&hooks).unwrap();
        fs::set_permissions(&hooks, Permissions::from_mode(0o755)).unwrap();
        Self {
            directory,
            settings: config::Hooks {
                limit: 20,
                ..config::Hooks::default()
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A hook in sh; `$D` is the scratch directory, and each call leaves a line in `$D/calls`.
    fn hook(&self, name: &str, script: &str) {
        let path = self.path("hooks.d").join(name);
        let directory = self.directory.path().display();
        let text = format!("#!/bin/sh\nD={directory}\necho \"{name} $1\" >>$D/calls\n{script}\n");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    fn hooks(&self) -> Hooks {
        let places = Places {
            directories: vec![self.path("hooks.d")],
            owner: nix::unistd::geteuid().as_raw(),
            top: self.directory.path().to_owned(),
        };
        let way = Way::Direct(env!("CARGO_BIN_EXE_hv-vssd").into());
        Hooks::at(&self.settings, places, &self.record(), Some(way))
    }

    fn record(&self) -> PathBuf {
        self.path("run/hooks")
    }

    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// The process id that a hook has written to a file of this name.
    fn pid(&self, name: &str) -> u32 {
        until("a process id", || {
            let text = fs::read_to_string(self.path(name)).unwrap_or_default();
            text.ends_with('\n').then(|| text.trim().parse().unwrap())
        })
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn dies(pid: u32) {
    until("the end of a process", || (!lives(pid)).then_some(()));
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        id: "20261122-030000-000001".to_owned(),
        hold: Duration::from_secs(100),
    }
}

fn freeze(hooks: &Hooks) -> (Result<(), HookError>, Vec<Run>) {
    let mut runs = Vec::new();
    let result = hooks.freeze(&checkpoint(), &|| false, &mut runs);
    (result, runs)
}

fn lines(run: &Run) -> Vec<String> {
    run.output.lines().collect()
}
