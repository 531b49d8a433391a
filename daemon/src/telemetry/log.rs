//! The log: one line a record, for the journal with its priority, for a terminal with time and level.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::gate::Gate;

/// Sends all records of `level` and above through `gate`, from now on.
///
/// `journal`: the output is systemd's journal, which adds the time itself and reads the priority from a prefix
/// (man 3 sd-daemon).
///
/// # Errors
/// When the process has a log already.
pub fn init(
    level: Level,
    journal: bool,
    gate: Gate,
) -> Result<(), tracing_subscriber::util::TryInitError> {
    use tracing_subscriber::util::SubscriberInitExt;
    // The default hook would write past the gate, and wait there for a frozen log before anything is thawed.
    std::panic::set_hook(Box::new(|panic| tracing::error!("internal error: {panic}")));
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(gate)
        .event_format(Line { journal })
        .finish()
        .try_init()
}

/// The time in UTC (RFC 3339), to the microsecond.
#[must_use]
pub fn now() -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut text));
    text
}

/// Whether standard error is connected to the journal (man 5 systemd.exec, `$JOURNAL_STREAM`: its device and inode).
#[must_use]
pub fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    // A service may have been given another log since it inherited the variable.
    nix::sys::stat::fstat(std::io::stderr())
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

struct Line {
    journal: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = *event.metadata().level();
        if self.journal {
            write!(writer, "<{}>", priority(level))?;
        } else {
            SystemTime.format_time(&mut writer)?;
            write!(writer, " {level:>5} ")?;
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
