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

    pub(super) fn wait_of(&self, fstype: &str, records: u64, longest: Duration, hold: Duration) {
        line(&format!(
            "  {fstype:<6} {records} records were synced before; the longest wait of a write was {}, of which the hold {}",
            ms(longest),
            ms(hold)
        ));
    }

    pub(super) fn fault(&self, text: &str) {
        line(&format!("  WRONG  {text}"));
    }

    pub(super) fn findings(&self, fstype: &str, held: &[Finding], running: &[Finding]) {
        for (name, findings) in [
            ("taken in the hold", held),
            ("taken without a freeze", running),
        ] {
            let words: Vec<String> = findings
                .iter()
                .map(|finding| format!("{}: {}", finding.what, finding.seen))
                .collect();
            let mark = match (
                findings.iter().all(Finding::is_good),
                name == "taken in the hold",
            ) {
                (true, _) => "good ",
                (false, true) => "WRONG",
                // What the freeze is for; nothing is wrong with the agent.
                (false, false) => "torn ",
            };
            line(&format!(
                "  {fstype:<6} {mark}  {name:<23} {}",
                words.join("; ")
            ));
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
