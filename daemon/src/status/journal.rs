//! A checkpoint as a record of the journal, whose fields a program can rely on.

use std::time::Duration;

use super::Cause;
use crate::quiesce::Report;
use crate::quiesce::report::{AskedBy, FileSystemResult, PhaseName};

/// Marks the record of a checkpoint: `journalctl MESSAGE_ID=…`.
pub const CHECKPOINT: &str = "7ab593a661f3491bb65d1cf959a19844";

/// The record of a checkpoint that is over. `cause`: why it failed, if it did.
#[must_use]
pub fn fields(report: &Report, cause: Option<Cause>) -> Vec<(&'static str, String)> {
    let asked_by = match report.asked_by {
        AskedBy::Host => "host",
        AskedBy::Manual => "manual",
    };
    let (outcome, priority) = if report.is_clean() {
        ("success", "6")
    } else {
        ("failure", "3")
    };
    let frozen = report
        .file_systems
        .iter()
        .filter(|fs| fs.result == FileSystemResult::Frozen)
        .count();
    let mut fields = vec![
        ("MESSAGE", message(report, asked_by, outcome)),
        ("MESSAGE_ID", CHECKPOINT.to_owned()),
        ("PRIORITY", priority.to_owned()),
        ("SYSLOG_IDENTIFIER", "hv-vssd".to_owned()),
        ("HV_VSSD_CHECKPOINT", report.id.clone()),
        ("HV_VSSD_ASKED_BY", asked_by.to_owned()),
        ("HV_VSSD_OUTCOME", outcome.to_owned()),
        ("HV_VSSD_FILE_SYSTEMS", frozen.to_string()),
        ("HV_VSSD_ATTEMPTS", report.attempts.to_string()),
    ];
    if report.flush_only {
        fields.push(("HV_VSSD_FLUSH_ONLY", "1".to_owned()));
    }
    if let Some(cause) = cause {
        fields.push(("HV_VSSD_CAUSE", cause.word().to_owned()));
    }
    if let Some(failure) = report.failures.first() {
        fields.push(("HV_VSSD_FAILURE", failure.clone()));
    }
    for (name, phase) in [
        ("HV_VSSD_PREPARE_MSEC", PhaseName::Prepare),
        ("HV_VSSD_HOOKS_MSEC", PhaseName::Hooks),
        ("HV_VSSD_WRITE_BACK_MSEC", PhaseName::WriteBack),
        ("HV_VSSD_FLUSH_MSEC", PhaseName::Flush),
        ("HV_VSSD_FREEZE_MSEC", PhaseName::Freeze),
        ("HV_VSSD_HOLD_MSEC", PhaseName::Hold),
        ("HV_VSSD_THAW_MSEC", PhaseName::Thaw),
    ] {
        if report.last(phase).is_some() {
            fields.push((name, milliseconds(report.total(phase))));
        }
    }
    if let Some(worst) = &report.worst_stall {
        fields.push(("HV_VSSD_STALL_MSEC", milliseconds(worst.stall)));
        fields.push(("HV_VSSD_STALL_MOUNT_POINT", worst.mount_point.clone()));
    }
    fields
}

fn message(report: &Report, asked_by: &str, outcome: &str) -> String {
    let mut text = format!("checkpoint {} ({asked_by}): {outcome}", report.id);
    if report.flush_only {
        text.push_str(", flushed only: the image is crash-consistent");
    } else if let Some(hold) = report.last(PhaseName::Hold) {
        text.push_str(&format!(", held for {} ms", milliseconds(hold.duration)));
    }
    if let Some(worst) = &report.worst_stall {
        text.push_str(&format!(", worst stall {worst}"));
    }
    if let Some(failure) = report.failures.first() {
        text.push_str(": ");
        text.push_str(failure);
    }
    text
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_checkpoint_says_why_and_has_only_the_phases_it_reached() {
        let mut report = Report::begin(AskedBy::Host);
        report.phase(PhaseName::Prepare, std::time::Instant::now());
        report.fail("/srv cannot be frozen".to_owned());
        let fields = fields(&report, Some(Cause::FileSystem));
        let get = |name| {
            let found = fields.iter().find(|(field, _)| *field == name);
            found.map(|(_, value)| value.as_str())
        };
        assert_eq!(get("MESSAGE_ID"), Some(CHECKPOINT));
        assert_eq!(get("PRIORITY"), Some("3"));
        assert_eq!(get("HV_VSSD_CHECKPOINT"), Some(report.id.as_str()));
        assert_eq!(get("HV_VSSD_OUTCOME"), Some("failure"));
        assert_eq!(get("HV_VSSD_CAUSE"), Some("file-system"));
        assert_eq!(get("HV_VSSD_FAILURE"), Some("/srv cannot be frozen"));
        assert!(get("HV_VSSD_PREPARE_MSEC").is_some());
        assert_eq!(get("HV_VSSD_HOLD_MSEC"), None);
        assert!(
            get("MESSAGE")
                .unwrap()
                .ends_with("(host): failure: /srv cannot be frozen")
        );
        for (name, _) in &fields {
            let plain = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            assert!(name.chars().all(plain), "no field's name: {name}");
        }
    }
}
