//! `hv-vssd check`: each cause produced in a guest, on the real driver.

mod configuration;
mod service;
mod storage;
mod way;

use std::time::Duration;

use serde_json::Value;
use tests::error::{Failure, Step};
use tests::guest::{Guest, poll_until};
use tests::{promise, scenario};

const LIMIT: Duration = Duration::from_secs(20);

/// What `check` found, and its exit status.
struct Found {
    report: Value,
    status: Option<i32>,
}

fn check(guest: &Guest) -> Step<Found> {
    check_by(guest, &["/usr/sbin/hv-vssd", "check", "--json"])
}

fn check_by(guest: &Guest, command: &[&str]) -> Step<Found> {
    let ended = guest.exec(command, LIMIT)?;
    let report = serde_json::from_str(&ended.stdout).map_err(|error| {
        Failure::Promise(format!(
            "no JSON ({error}): {}{}",
            ended.stdout, ended.stderr
        ))
    })?;
    Ok(Found {
        report,
        status: ended.status,
    })
}

impl Found {
    fn codes(&self) -> Vec<&str> {
        let findings = self.report.get("findings").and_then(Value::as_array);
        findings
            .into_iter()
            .flatten()
            .filter_map(|finding| finding["code"].as_str())
            .collect()
    }

    /// The finding of this code, of this severity; its sentence.
    fn has(&self, code: &str, severity: &str) -> Step<&str> {
        let findings = self.report.get("findings").and_then(Value::as_array);
        let found = findings
            .into_iter()
            .flatten()
            .find(|finding| finding["code"] == code);
        let Some(found) = found else {
            return Err(Failure::Promise(format!(
                "{code} is not found: {}",
                self.report
            )));
        };
        promise!(
            found["severity"] == severity,
            "{code} is no {severity}: {}",
            self.report
        );
        promise!(
            severity == "note" || !found["remedy"].as_str().unwrap_or_default().is_empty(),
            "{code} has no remedy"
        );
        Ok(found["finding"].as_str().unwrap_or_default())
    }

    fn has_not(&self, code: &str) -> Step<&Self> {
        promise!(
            !self.codes().contains(&code),
            "{code} is found: {}",
            self.report
        );
        Ok(self)
    }

    /// What the host gets, with the exit status that belongs to it.
    fn gives(&self, outcome: &str) -> Step<&Self> {
        promise!(
            self.report.get("outcome").and_then(Value::as_str) == Some(outcome),
            "not {outcome}: {}",
            self.report
        );
        let consistent = matches!(outcome, "application-consistent" | "file-system-consistent");
        let status = Some(i32::from(!consistent));
        promise!(
            self.status == status,
            "{outcome} with exit status {:?}",
            self.status
        );
        Ok(self)
    }
}

/// Waits until it is found: a process that was told to end or to stop takes a moment.
fn eventually(guest: &Guest, code: &str) -> Step<()> {
    let found = poll_until(LIMIT, || {
        Ok::<_, Failure>(check(guest)?.codes().contains(&code).then_some(()))
    })?;
    found.ok_or_else(|| Failure::Promise(format!("{code} is not found")))
}

fn gone(guest: &Guest, code: &str) -> Step<()> {
    let gone = poll_until(LIMIT, || {
        Ok::<_, Failure>((!check(guest)?.codes().contains(&code)).then_some(()))
    })?;
    gone.ok_or_else(|| Failure::Promise(format!("{code} is still found")))
}

scenario! {
    /// Beside the table: each cause of `hv-vssd check`, one after the other.
    row: "", "hv-vssd check: each part on the way to the host taken away",
    hv_vssd_alone,
    fn check_names_what_is_missing_on_the_way_to_the_host(bed) {
        way::the_way_to_the_host(bed)
    }
}

scenario! {
    row: "", "hv-vssd check: other agents, a stopped one, a dead guardian, a left-over",
    hv_vssd_alone,
    fn check_tells_who_serves_the_host(bed) {
        service::the_service(bed)
    }
}

scenario! {
    row: "", "hv-vssd check: strictness, exclusions, refused hooks",
    hv_vssd_alone,
    fn check_tells_what_the_configuration_does(bed) {
        configuration::configuration_and_hooks(bed)
    }
}

scenario! {
    row: "", "hv-vssd check: frozen, suspended, served and broken disks",
    hv_vssd_alone,
    fn check_tells_the_state_of_the_disks(bed) {
        storage::file_systems(bed)
    }
}
