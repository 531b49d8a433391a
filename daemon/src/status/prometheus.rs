//! The status as Prometheus reads it: the text exposition format, version 0.0.4.

use std::fmt::{Display, Write as _};

use super::{Cause, Status, Work};
use crate::quiesce::Report;
use crate::quiesce::report::{AskedBy, PhaseName};

/// All metrics. Times are seconds, counters count from the agent's start.
#[must_use]
pub fn render_prometheus(status: &Status) -> String {
    let mut out = Exposition::default();
    let counters = &status.counters;
    out.metric(
        "build_info",
        "gauge",
        "The version of the agent, as a label.",
    );
    out.sample("build_info", &[("version", &status.version)], 1.0);
    out.single(
        "start_time_seconds",
        "gauge",
        "When the agent started, in seconds since 1970.",
        status.started_unix,
    );
    out.single(
        "registered",
        "gauge",
        "1 while the agent is registered with the driver, so that the host can ask.",
        flag(status.service.registered),
    );
    out.single(
        "guardian_up",
        "gauge",
        "1 while the process that thaws should the agent die is alive.",
        flag(status.guardian.alive),
    );
    out.single(
        "hold_in_progress",
        "gauge",
        "1 while file systems are held frozen.",
        flag(matches!(status.work, Work::Held | Work::ManualHeld)),
    );
    out.metric(
        "hot_backups_total",
        "counter",
        "Requests HOT_BACKUP of the host, by what they were answered.",
    );
    for (answer, count) in [
        ("success", counters.hot_backups_promised),
        ("failure", counters.hot_backups_refused),
    ] {
        out.sample("hot_backups_total", &[("answer", answer)], number(count));
    }
    out.metric(
        "checkpoints_total",
        "counter",
        "Checkpoints begun, by who asked for them and how they ended.",
    );
    for (asked_by, outcomes) in [("host", counters.host), ("manual", counters.manual)] {
        for (outcome, count) in [
            ("success", outcomes.succeeded),
            ("failure", outcomes.failed),
        ] {
            let labels = [("asked_by", asked_by), ("outcome", outcome)];
            out.sample("checkpoints_total", &labels, number(count));
        }
    }
    out.metric(
        "checkpoint_failures_total",
        "counter",
        "Checkpoints that failed, by cause.",
    );
    for cause in Cause::ALL {
        let count = counters.failures.get(&cause).copied().unwrap_or_default();
        let labels = [("cause", cause.word())];
        out.sample("checkpoint_failures_total", &labels, number(count));
    }
    out.single(
        "holds_ended_early_total",
        "counter",
        "Holds that ended before whoever asked for them ended them.",
        number(counters.holds_ended_early),
    );
    out.single(
        "channel_losses_total",
        "counter",
        "How often the channel to the driver was lost.",
        number(counters.channel_losses),
    );
    out.metric(
        "phase_seconds_total",
        "counter",
        "Time spent in each phase of all checkpoints.",
    );
    for phase in PhaseName::ALL {
        let seconds = counters.phase_seconds.get(&phase).copied();
        let labels = [("phase", phase.word())];
        out.sample("phase_seconds_total", &labels, seconds.unwrap_or_default());
    }
    out.single(
        "worst_stall_seconds",
        "gauge",
        "The longest that a write could have had to wait for freeze and thaw, since the agent's start; neither the hold nor what the flush costs is in it.",
        counters
            .worst_stall
            .as_ref()
            .map_or(0.0, |w| w.stall_ms / 1e3),
    );
    out.metric(
        "last_success_timestamp_seconds",
        "gauge",
        "When the last checkpoint that succeeded began, in seconds since 1970; absent before the first.",
    );
    for (asked_by, outcomes) in [("host", counters.host), ("manual", counters.manual)] {
        if let Some(at) = outcomes.last_success_unix {
            out.sample(
                "last_success_timestamp_seconds",
                &[("asked_by", asked_by)],
                at,
            );
        }
    }
    if let Some(last) = status.checkpoints.last() {
        last_checkpoint(&mut out, last);
    }
    out.text
}

fn last_checkpoint(out: &mut Exposition, last: &Report) {
    let asked_by = match last.asked_by {
        AskedBy::Host => "host",
        AskedBy::Manual => "manual",
    };
    out.metric(
        "last_checkpoint_timestamp_seconds",
        "gauge",
        "When the last checkpoint began, in seconds since 1970.",
    );
    let labels = [("asked_by", asked_by)];
    out.sample(
        "last_checkpoint_timestamp_seconds",
        &labels,
        last.started_unix,
    );
    out.single(
        "last_checkpoint_success",
        "gauge",
        "1 if the last checkpoint was kept to its end.",
        flag(last.is_clean()),
    );
    out.metric(
        "last_checkpoint_phase_seconds",
        "gauge",
        "How long each phase of the last checkpoint took.",
    );
    for phase in PhaseName::ALL {
        let labels = [("phase", phase.word())];
        let seconds = last.total(phase).as_secs_f64();
        out.sample("last_checkpoint_phase_seconds", &labels, seconds);
    }
    out.metric(
        "last_checkpoint_stall_seconds",
        "gauge",
        "How long a write could have had to wait for freeze and thaw in the last checkpoint, for those file systems where that was longest.",
    );
    let mut seen = std::collections::BTreeSet::new();
    for fs in &last.file_systems {
        let dev = fs.dev.to_string();
        if let Some(stall) = fs.stall.filter(|_| seen.insert(fs.dev)) {
            let labels = [
                ("mount_point", fs.mount_point.as_str()),
                ("fstype", fs.fstype.as_str()),
                ("dev", &dev),
            ];
            out.sample(
                "last_checkpoint_stall_seconds",
                &labels,
                stall.as_secs_f64(),
            );
        }
    }
}

#[derive(Default)]
struct Exposition {
    text: String,
}

impl Exposition {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP hv_vssd_{name} {help}");
        let _ = writeln!(self.text, "# TYPE hv_vssd_{name} {kind}");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let _ = write!(self.text, "hv_vssd_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{open}{label}=\"{}\"", Escaped(text));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value: backslash, quote and line feed are escaped.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, and Prometheus has nothing but floating point"
)]
fn number(count: u64) -> f64 {
    count as f64
}
