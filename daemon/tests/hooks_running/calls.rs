//! In which order hooks are called, what they are told, and what follows when one fails.

use hv_vssd::config::{HookOverride, OnFailure};
use hv_vssd::hooks::{Applications, HookError, Outcome};

use super::{Machine, checkpoint, freeze, lines};

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
