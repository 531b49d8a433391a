//! What the demo shows: a timeline while it works, and a verdict.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hvutil_sys::vss::{Operation, Status};

use super::DemoError;
use super::host::{Answer, Host};
use super::verify::Finding;

/// Standard output, and the moment the demo began.
pub(super) struct Screen {
    started: Instant,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
        }
    }

    pub(super) fn title(&self) {
        line(
            "hv-vssd demo: a production checkpoint of scratch disks, with a simulated Hyper-V host",
        );
    }

    pub(super) fn phase(&self, name: &str) {
        line(&format!("\n{name}"));
    }

    pub(super) fn disk(&self, fstype: &str, device: &Path) {
        line(&format!(
            "  {fstype:<6} {}, a writer on it syncs every record",
            device.display()
        ));
    }

    pub(super) fn skipped(&self, fstype: &str, reason: &str) {
        line(&format!("  {fstype:<6} left out: {reason}"));
    }

    /// Shows a request while it is waited for, then the answer.
    pub(super) fn request(
        &self,
        host: &mut Host,
        operation: Operation,
        gloss: &str,
    ) -> Result<Answer, DemoError> {
        self.begin(&format!(
            "{operation:<11}",
            operation = operation.to_string()
        ));
        let answer = host.request(operation);
        match &answer {
            Ok(answer) => line(&format!(
                "→ {} after {:<9} {gloss}",
                status(answer.status),
                ms(answer.took)
            )),
            Err(_) => line("→ no answer"),
        }
        answer
    }

    /// Shows something the host does by itself.
    pub(super) fn step<T>(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<T, DemoError>,
    ) -> Result<T, DemoError> {
        self.begin(name);
        let started = Instant::now();
        let result = work();
        line(&format!(" ({})", ms(started.elapsed())));
        result
    }

    /// The longest wait of one write for each disk, hold and all.
    pub(super) fn waits(&self, waits: &[(&str, u64, Duration)], hold: Duration) {
        for (fstype, records, longest) in waits {
            line(&format!(
                "  {fstype:<6} longest wait of a write {:<9} ({records} records synced before the hold)",
                ms(*longest)
            ));
        }
        line(&format!(
            "  The host held the guest for {} of that.",
            ms(hold)
        ));
    }

    pub(super) fn fault(&self, text: &str) {
        line(&format!("  WRONG  {text}"));
    }

    pub(super) fn findings_title(&self) {
        line(&format!(
            "\n{:<26} {:<32} {}",
            "Checking the copies", "taken in the hold", "taken without a freeze"
        ));
    }

    /// One row for each thing looked at. A copy without a freeze may be torn: that is what the freeze is for.
    pub(super) fn findings(&self, fstype: &str, held: &[Finding], running: &[Finding]) {
        let mut name = fstype;
        for (held, running) in held.iter().zip(running) {
            let seen = if held.is_good() {
                held.seen.clone()
            } else {
                format!("WRONG: {}", held.seen)
            };
            line(&format!(
                "  {name:<7} {:<16} {seen:<32} {}",
                held.what, running.seen
            ));
            name = "";
        }
    }

    pub(super) fn verdict(&self, good: bool) {
        line(if good {
            "\nThe host would have got a file-system-consistent production checkpoint. Nothing is left behind."
        } else {
            "\nSomething is WRONG, see above: this agent would not have given the host what it promised."
        });
    }

    fn begin(&self, text: &str) {
        let mut output = io::stdout().lock();
        let _ = write!(
            output,
            "  {:>7.3} s  host {text} ",
            self.started.elapsed().as_secs_f64()
        );
        let _ = output.flush();
    }
}

fn status(status: Status) -> &'static str {
    match status {
        Status::Ok => "success",
        Status::Fail => "FAILURE",
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// A reader that has gone away must not keep the demo from cleaning up.
fn line(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
