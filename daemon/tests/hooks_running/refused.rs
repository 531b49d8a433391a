//! What is not run: files that must not be, or cannot be, and any hook without a record or where hooks are off.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use hv_vssd::config::{HookOverride, OnFailure};
use hv_vssd::hooks::{Applications, HookError, Outcome};

use super::{Machine, freeze, lines};

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
