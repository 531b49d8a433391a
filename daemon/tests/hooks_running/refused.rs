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

#[test]
fn a_program_is_executed_as_the_descriptor_that_was_looked_at_and_a_script_keeps_its_name() {
    let machine = Machine::new();
    machine.hook("10-script", "echo \"$0\" >>$D/names; cat >>$D/input");
    // A program that tells what it was executed as, under a name that is a link.
    let program = machine.path("program");
    fs::copy(fs::canonicalize("/bin/sh").unwrap(), &program).unwrap();
    let wanted = std::process::Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .args(["hook-exec", "--"])
        .arg(&program)
        .arg("freeze")
        .stdin(fs::File::open(machine.path("hooks.d/10-script")).unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&wanted.stderr).into_owned();
    assert!(
        !wanted.status.success() && said.contains("not the file that was looked at"),
        "{said}"
    );

    let hooks = machine.hooks();
    freeze(&hooks).0.unwrap();
    hooks.thaw(Outcome::Success);
    let path = machine.path("hooks.d/10-script").display().to_string();
    let names = fs::read_to_string(machine.path("names")).unwrap();
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        [path.as_str(), path.as_str()]
    );
    assert_eq!(fs::read_to_string(machine.path("input")).unwrap(), "");
}

/// `sh` with the argument `freeze` runs a script of that name: found in its working directory, `/`. So its failure names both.
#[test]
fn a_program_that_is_no_script_runs_as_a_hook() {
    let machine = Machine::new();
    let path = machine.path("hooks.d/10-program");
    fs::copy(fs::canonicalize("/bin/sh").unwrap(), &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let (result, runs) = freeze(&machine.hooks());
    assert!(matches!(result, Err(HookError::Failed(..))));
    let said = lines(&runs[0]).join(" ");
    assert!(
        said.contains("10-program") && said.contains("freeze"),
        "{said}"
    );
}
