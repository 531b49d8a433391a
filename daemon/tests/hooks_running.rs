//! Hooks as processes: what they are told, how long they may take, what they may leave behind, and that each gets its thaw.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hv_vssd::config::{self, HookOverride, OnFailure};
use hv_vssd::hooks::discover::Places;
use hv_vssd::hooks::{Applications, Checkpoint, HookError, Hooks, Operation, Outcome, Run, Way};
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

#[test]
fn hooks_run_in_name_order_and_thaw_in_reverse() {
    let machine = Machine::new();
    for name in ["20-b", "10-a", "30-c"] {
        machine.hook(name, "");
    }
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    result.unwrap();
    assert_eq!(runs.len(), 3);
    assert!(machine.record().exists());
    let runs = hooks.thaw(Outcome::Success);
    assert!(runs.iter().all(|run| run.failure.is_none()), "{runs:?}");
    let calls = [
        "10-a freeze",
        "20-b freeze",
        "30-c freeze",
        "30-c thaw",
        "20-b thaw",
        "10-a thaw",
    ];
    assert_eq!(machine.calls(), calls);
    assert!(!machine.record().exists(), "nothing is owed any more");
    assert!(!hooks.owes_thaw() && hooks.thaw(Outcome::Success).is_empty());
}

#[test]
fn a_hook_is_told_what_it_needs_and_inherits_nothing_else() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "env | grep ^HV_VSSD_ | sort\npwd; umask; cat; ulimit -Sn\ncat /proc/self/oom_score_adj\n\
         grep -E '^(SigBlk|SigIgn)' /proc/self/status | cut -f2",
    );
    let hooks = machine.hooks();
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_secs();
    let (result, runs) = freeze(&hooks);
    result.unwrap();
    let told = lines(&runs[0]);
    let value = |key: &str| {
        let line = told
            .iter()
            .find_map(|line| line.strip_prefix(&format!("HV_VSSD_{key}=")));
        line.map(str::to_owned)
    };
    assert_eq!(value("OPERATION").unwrap(), "freeze");
    assert_eq!(value("CHECKPOINT").unwrap(), checkpoint().id);
    assert_eq!(value("OUTCOME"), None);
    let deadline: u64 = value("DEADLINE").unwrap().parse().unwrap();
    assert!((now + 20..now + 40).contains(&deadline), "{told:?}");
    let thaw_by: u64 = value("THAW_BY").unwrap().parse().unwrap();
    assert!((now + 220..now + 240).contains(&thaw_by), "{told:?}");
    // Standard input is empty. Of signals, the first 31: the others are libc's own.
    let rest: Vec<&str> = told[told.len() - 6..].iter().map(String::as_str).collect();
    assert_eq!(rest[..4], ["/", "0022", "1024", "0"]);
    for signals in &rest[4..] {
        let signals = u64::from_str_radix(signals, 16).unwrap();
        assert_eq!(signals & 0x7fff_ffff, 0, "{rest:?}");
    }
    let runs = hooks.thaw(Outcome::Failure);
    let told = lines(&runs[0]);
    for line in ["HV_VSSD_OPERATION=thaw", "HV_VSSD_OUTCOME=failure"] {
        assert!(told.contains(&line.to_owned()), "{told:?}");
    }
}

#[test]
fn a_hook_that_fails_ends_the_freeze_and_those_started_get_their_thaw() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    machine.hook("20-b", "[ $1 = thaw ] || { echo no server; exit 3; }");
    machine.hook("30-c", "");
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    let error = result.unwrap_err();
    assert!(
        matches!(&error, HookError::Failed(name, _) if name == "20-b"),
        "{error:?}"
    );
    assert_eq!(
        runs[1].failure.as_deref(),
        Some("it ended with exit status 3")
    );
    assert_eq!(lines(&runs[1]), ["no server"]);
    hooks.thaw(Outcome::Failure);
    assert_eq!(
        machine.calls(),
        ["10-a freeze", "20-b freeze", "20-b thaw", "10-a thaw"]
    );
}

#[test]
fn a_failure_is_noted_where_the_checkpoint_is_to_go_on() {
    let mut machine = Machine::new();
    machine.hook("10-a", "exit 1");
    machine.hook("20-b", "kill -9 $$");
    machine.hook("30-c", "exit 1");
    machine.settings.on_failure = OnFailure::Continue;
    let strict = HookOverride {
        on_failure: Some(OnFailure::Abort),
        limit: None,
    };
    machine.settings.by_name.insert("30-c".to_owned(), strict);
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    assert!(matches!(result, Err(HookError::Failed(name, _)) if name == "30-c"));
    assert_eq!(runs[1].failure.as_deref(), Some("it was ended by signal 9"));
    assert_eq!(hooks.thaw(Outcome::Failure).len(), 3);
}

#[test]
fn a_hook_that_hangs_and_ignores_signals_is_ended_with_all_it_started() {
    let mut machine = Machine::new();
    machine.hook(
        "10-a",
        "[ $1 = thaw ] && exit\ntrap '' TERM\nsleep 1000 & echo $! >$D/child\nwhile :; do sleep 1; done",
    );
    machine.settings.limit = 1;
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    assert!(matches!(result, Err(HookError::Failed(..))));
    let failure = runs[0].failure.as_deref().unwrap();
    assert_eq!(failure, "it was not done within 1 s, and was ended");
    dies(machine.pid("child"));
    hooks.thaw(Outcome::Failure);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn all_hooks_together_have_a_limit() {
    let mut machine = Machine::new();
    machine.hook("10-a", "[ $1 = thaw ] || sleep 1000");
    machine.hook("20-b", "");
    machine.settings.total = 1;
    machine.settings.on_failure = OnFailure::Continue;
    let hooks = machine.hooks();
    let (result, _) = freeze(&hooks);
    assert!(matches!(result, Err(HookError::Total(name, _)) if name == "20-b"));
    hooks.thaw(Outcome::Failure);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn a_flood_of_output_neither_stops_a_hook_nor_is_kept() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "echo first; head -c 20000000 /dev/zero | tr '\\0' x; echo; echo last >&2",
    );
    let hooks = machine.hooks();
    let (result, runs) = freeze(&hooks);
    result.unwrap();
    let told = lines(&runs[0]);
    assert_eq!(
        (told[0].as_str(), told.last().unwrap().as_str()),
        ("first", "last")
    );
    assert!(told.concat().len() < 5000);
    assert!(runs[0].output.dropped() > 19_000_000);
}

#[test]
fn what_a_freeze_leaves_behind_lives_until_its_thaw_has_returned_and_no_longer() {
    let machine = Machine::new();
    // Both keep the pipe open; the second is forked twice.
    machine.hook(
        "10-a",
        "if [ $1 = freeze ]; then\n  sleep 1000 & echo $! >$D/held\n\
         \x20 (sleep 1000 & echo $! >$D/twice) &\n  wait $!\nelse\n\
         \x20 kill -0 $(cat $D/held) && kill -0 $(cat $D/twice) && echo still held\nfi",
    );
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    let left = [machine.pid("held"), machine.pid("twice")];
    assert!(left.iter().all(|pid| lives(*pid)), "held as long as needed");
    let runs = hooks.thaw(Outcome::Success);
    assert_eq!(lines(&runs[0]), ["still held"]);
    left.into_iter().for_each(dies);
}

#[test]
fn what_a_thaw_leaves_behind_is_ended() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "[ $1 = freeze ] || { sleep 1000 & echo $! >$D/left; }",
    );
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    assert_eq!(hooks.thaw(Outcome::Success)[0].failure, None);
    dies(machine.pid("left"));
}

#[test]
fn a_thaw_that_hangs_or_fails_is_told_and_keeps_no_other_from_its_own() {
    let mut machine = Machine::new();
    machine.hook("10-a", "");
    machine.hook("20-b", "[ $1 = freeze ] || exit 7");
    machine.hook("30-c", "[ $1 = freeze ] || sleep 1000");
    let short = HookOverride {
        on_failure: None,
        limit: Some(1),
    };
    machine.settings.by_name.insert("30-c".to_owned(), short);
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    let runs = hooks.thaw(Outcome::Success);
    let failures: Vec<_> = runs.iter().map(|run| run.failure.as_deref()).collect();
    let late = "it was not done within 1 s, and was ended";
    assert_eq!(
        failures,
        [Some(late), Some("it ended with exit status 7"), None]
    );
    assert!(!machine.record().exists());
}

#[test]
fn giving_up_ends_the_hook_at_work() {
    let machine = Machine::new();
    machine.hook("10-a", "[ $1 = thaw ] || { echo $$ >$D/hook; sleep 1000; }");
    machine.hook("20-b", "");
    let hooks = machine.hooks();
    let given_up = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&given_up);
    let mut runs = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            machine.pid("hook");
            given_up.store(true, Ordering::SeqCst);
        });
        let aborted = || flag.load(Ordering::SeqCst);
        let result = hooks.freeze(&checkpoint(), &aborted, &mut runs);
        assert!(matches!(result, Err(HookError::Aborted)), "{result:?}");
    });
    dies(machine.pid("hook"));
    hooks.thaw(Outcome::Failure);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn a_file_that_no_program_can_be_made_of_fails_as_a_hook() {
    let machine = Machine::new();
    let path = machine.path("hooks.d/10-a");
    fs::write(&path, "#!/nonexistent/interpreter\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let (result, runs) = freeze(&machine.hooks());
    assert!(matches!(result, Err(HookError::Failed(..))));
    assert!(
        lines(&runs[0])[0].contains("10-a cannot be executed"),
        "{runs:?}"
    );
}

#[test]
fn a_hook_that_must_not_be_run_fails_the_freeze_before_any_is_run() {
    let mut machine = Machine::new();
    machine.hook("10-a", "");
    machine.hook("20-b", "");
    fs::set_permissions(machine.path("hooks.d/20-b"), Permissions::from_mode(0o777)).unwrap();
    let hooks = machine.hooks();
    assert!(matches!(hooks.check(), Err(HookError::Refused(..))));
    assert!(matches!(freeze(&hooks).0, Err(HookError::Refused(..))));
    assert!(machine.calls().is_empty());
    let tolerated = HookOverride {
        on_failure: Some(OnFailure::Continue),
        limit: None,
    };
    machine
        .settings
        .by_name
        .insert("20-b".to_owned(), tolerated);
    let hooks = machine.hooks();
    hooks.check().unwrap();
    freeze(&hooks).0.unwrap();
    assert_eq!(machine.calls(), ["10-a freeze"]);
}

#[test]
fn nothing_is_run_where_hooks_are_switched_off() {
    let mut machine = Machine::new();
    machine.hook("10-a", "");
    fs::set_permissions(machine.path("hooks.d/10-a"), Permissions::from_mode(0o777)).unwrap();
    machine.settings.enabled = false;
    let hooks = machine.hooks();
    hooks.check().unwrap();
    freeze(&hooks).0.unwrap();
    assert_eq!(hooks.limit(), Duration::ZERO);
    assert!(machine.calls().is_empty() && !hooks.owes_thaw());
}

#[test]
fn without_a_record_no_hook_is_run() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    fs::write(machine.path("run"), "a file where the directory should be").unwrap();
    let hooks = machine.hooks();
    assert!(matches!(freeze(&hooks).0, Err(HookError::Record(..))));
    assert!(machine.calls().is_empty() && !hooks.owes_thaw());
}

#[test]
fn the_next_agent_thaws_what_a_dead_one_has_started() {
    let machine = Machine::new();
    machine.hook(
        "10-a",
        "[ $1 = thaw ] || { sleep 1000 & echo $! >$D/held; }",
    );
    machine.hook("20-b", "");
    let dead = machine.hooks();
    freeze(&dead).0.unwrap();
    // As a process that was killed: nothing is undone.
    std::mem::forget(dead);
    let hooks = machine.hooks().recovering();
    assert!(hooks.owes_thaw());
    let runs = hooks.thaw(Outcome::Failure);
    assert!(runs.iter().all(|run| run.operation == Operation::Thaw));
    assert_eq!(machine.calls()[2..], ["20-b thaw", "10-a thaw"]);
    dies(machine.pid("held"));
    assert!(!machine.record().exists());
    assert!(!machine.hooks().recovering().owes_thaw());
}

#[test]
fn a_hook_that_a_dead_agent_was_running_is_ended_before_its_thaw() {
    let machine = Machine::new();
    machine.hook("10-a", "[ $1 = thaw ] || { echo $$ >$D/hook; sleep 1000; }");
    thread::scope(|scope| {
        scope.spawn(|| {
            let dead = machine.hooks();
            let (result, _) = freeze(&dead);
            assert!(result.is_err(), "ended by the next agent");
            std::mem::forget(dead);
        });
        let hook = machine.pid("hook");
        let hooks = until("the record of the process", || {
            let text = fs::read_to_string(machine.record()).unwrap_or_default();
            text.contains("group").then(|| machine.hooks().recovering())
        });
        hooks.thaw(Outcome::Failure);
        dies(hook);
    });
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}

#[test]
fn a_hook_that_has_gone_or_was_tampered_with_is_not_run_for_its_thaw() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    machine.hook("20-b", "");
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    fs::set_permissions(machine.path("hooks.d/10-a"), Permissions::from_mode(0o777)).unwrap();
    fs::remove_file(machine.path("hooks.d/20-b")).unwrap();
    let runs = hooks.thaw(Outcome::Success);
    let failures: Vec<_> = runs.iter().filter_map(|run| run.failure.clone()).collect();
    assert!(
        failures
            .iter()
            .all(|failure| failure.starts_with("it must not be run: "))
    );
    assert_eq!(failures.len(), 2);
    assert_eq!(machine.calls().len(), 2);
}

#[test]
fn a_damaged_record_is_put_aside_and_stops_nothing() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    fs::create_dir(machine.path("run")).unwrap();
    fs::write(machine.record(), "no record").unwrap();
    let hooks = machine.hooks().recovering();
    assert!(!hooks.owes_thaw());
    assert!(Path::new(&machine.path("run/hooks.damaged")).exists());
    freeze(&hooks).0.unwrap();
}

#[test]
fn hooks_that_are_dropped_while_they_owe_thaw() {
    let machine = Machine::new();
    machine.hook("10-a", "");
    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    drop(hooks);
    assert_eq!(machine.calls(), ["10-a freeze", "10-a thaw"]);
}
