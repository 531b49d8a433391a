//! Who is measured: the agents, and hv-vssd with one of its means switched off.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use ::tests::error::{BedError, BedResult, Failure, Step};
use ::tests::guest::{Guest, poll_until};
use ::tests::host::Operation;

const LIMIT: Duration = Duration::from_secs(30);

/// Without an agent, so long nothing is asked.
const NOTHING: Duration = Duration::from_secs(2);

/// An agent, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Contender {
    /// This project's, as shipped.
    HvVssd,
    /// Without data written back before the first commit.
    NoWriteBack,
    /// Without expedited RCU grace periods.
    NoExpedite,
    /// The C daemon of the kernel's sources.
    CDaemon,
    /// No agent at all: what the machine itself makes a write wait.
    Nobody,
    /// QEMU's guest agent, asked through its socket.
    GuestAgent,
}

impl Contender {
    /// All, in the order of their turns.
    pub(crate) const ALL: [Self; 6] = [
        Self::Nobody,
        Self::HvVssd,
        Self::CDaemon,
        Self::GuestAgent,
        Self::NoWriteBack,
        Self::NoExpedite,
    ];

    /// The agents as shipped, first this project's.
    pub(crate) const AGENTS: [Self; 3] = [Self::HvVssd, Self::CDaemon, Self::GuestAgent];

    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HvVssd => "hv-vssd",
            Self::NoWriteBack => "hv-vssd, write_back = false",
            Self::NoExpedite => "hv-vssd, expedite = false",
            Self::CDaemon => "hv_vss_daemon",
            Self::Nobody => "no checkpoint",
            Self::GuestAgent => "qemu-ga",
        }
    }

    /// A variant shows what a means is worth; it is no agent of its own.
    pub(crate) fn is_variant(self) -> bool {
        matches!(self, Self::NoWriteBack | Self::NoExpedite)
    }

    /// Its program's name in the guest.
    fn program(self) -> &'static str {
        match self {
            Self::HvVssd | Self::NoWriteBack | Self::NoExpedite => "hv-vssd",
            Self::CDaemon => "hv_vss_daemon",
            Self::Nobody => "nobody",
            Self::GuestAgent => "qemu-ga",
        }
    }

    /// Its program's path in the guest.
    pub(crate) fn path(self) -> &'static str {
        self.argv().first().copied().unwrap_or_default()
    }

    fn argv(self) -> &'static [&'static str] {
        const CONFIG: &str = "/run/bench.toml";
        match self {
            Self::HvVssd | Self::NoWriteBack | Self::NoExpedite => {
                &["/usr/sbin/hv-vssd", "run", "--config", CONFIG]
            }
            Self::CDaemon => &["/usr/sbin/hv_vss_daemon", "-n"],
            Self::Nobody => &["/bin/sleep", "100000"],
            Self::GuestAgent => &[
                "/usr/sbin/qemu-ga",
                "-m",
                "unix-listen",
                "-p",
                SOCKET,
                "-t",
                "/run",
            ],
        }
    }

    fn configuration(self) -> &'static str {
        match self {
            Self::NoWriteBack => "write_back = false\n",
            Self::NoExpedite => "expedite = false\n",
            _ => "",
        }
    }

    /// Starts it and waits until it serves; returns how long that took in the guest.
    pub(crate) fn start(self, guest: &mut Guest) -> Step<Duration> {
        guest.write("/run/bench.toml", self.configuration())?;
        // Of an agent that served before.
        guest.sh(&format!("rm -f {SOCKET}"))?;
        let before = now(guest)?;
        guest.spawn(self.name(), self.argv())?;
        if self == Self::Nobody {
            return Ok(Duration::ZERO);
        }
        if self == Self::GuestAgent {
            // The socket is there before it is listened to; a ping is answered once it is.
            let up = poll_until(LIMIT, || {
                let done =
                    guest.exec(&["/sbin/hv-testguest", "qga", SOCKET, "guest-ping"], LIMIT)?;
                Ok::<_, BedError>((done.status == Some(0)).then_some(()))
            })?;
            up.ok_or_else(|| Failure::Promise("qemu-ga opened no socket".into()))?;
            return Ok(Duration::from_nanos(now(guest)?.saturating_sub(before)));
        }
        let up = poll_until(LIMIT, || {
            let answer = guest.host()?.try_request(Operation::HOT_BACKUP, LIMIT)?;
            let served = answer.is_some_and(|answer| answer.ok());
            Ok::<_, BedError>(served.then_some(now(guest)?))
        })?;
        let up = up.ok_or_else(|| Failure::Promise(format!("{} did not register", self.name())))?;
        Ok(Duration::from_nanos(up.saturating_sub(before)))
    }

    /// Asks whether a checkpoint can be made, as every host does first, and returns how long the answer took.
    pub(crate) fn is_asked_first(self, guest: &mut Guest) -> Step<Option<Duration>> {
        if matches!(self, Self::Nobody | Self::GuestAgent) {
            return Ok(None);
        }
        let (sent, answered) = passed(guest, Operation::HOT_BACKUP)?;
        Ok(Some(Duration::from_nanos(answered.saturating_sub(sent))))
    }

    /// Ends it and waits for that.
    pub(crate) fn stop(self, guest: &Guest) -> Step<()> {
        guest.signal(self.name(), Signal::SIGTERM)?;
        let ended = poll_until(LIMIT, || {
            let running = guest.job(self.name())?.running;
            Ok::<_, BedError>((!running).then_some(()))
        })?;
        ended.ok_or_else(|| Failure::Promise(format!("{} did not end", self.name())))?;
        Ok(())
    }

    /// Its processes.
    pub(crate) fn processes(self, guest: &Guest) -> BedResult<Vec<String>> {
        let found = guest.sh(&format!("pidof {} || true", self.program()))?;
        Ok(found.split_whitespace().map(ToOwned::to_owned).collect())
    }

    /// Freezes or thaws; when it was sent and when it was answered.
    pub(crate) fn asks(self, guest: &mut Guest, freeze: bool) -> Step<(u64, u64)> {
        if self == Self::Nobody {
            let sent = now(guest)?;
            if freeze {
                std::thread::sleep(NOTHING);
            }
            let over = now(guest)?;
            // No hold: what happens in it counts.
            return Ok(if freeze { (sent, over) } else { (sent, sent) });
        }
        if self == Self::GuestAgent {
            return through_socket(guest, freeze);
        }
        let operation = if freeze {
            Operation::FREEZE
        } else {
            Operation::THAW
        };
        passed(guest, operation)
    }
}

const SOCKET: &str = "/run/qga.sock";

/// The guest's clock.
pub(crate) fn now(guest: &Guest) -> BedResult<u64> {
    let said = guest.exec(&["/sbin/hv-testguest", "cpu"], LIMIT)?.stdout;
    said.trim()
        .parse()
        .map_err(|_| BedError::Guest(format!("no time: {said}")))
}

/// A request of the host that must succeed; when it passed the relay in the guest, and when its answer did.
fn passed(guest: &mut Guest, operation: Operation) -> Step<(u64, u64)> {
    guest.write(tests::proto::HOST_TIMES, "")?;
    let limit = Duration::from_secs(300);
    let answer = guest.host()?.try_request(operation, limit)?;
    if !answer.is_some_and(tests::host::Answer::ok) {
        return Err(Failure::Promise(format!("{} failed", operation.name())));
    }
    let times = guest.read(tests::proto::HOST_TIMES)?;
    let at = |direction: &str| {
        let prefix = format!("{direction} {} ", operation.0);
        let line = times.lines().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|time| time.parse().ok())
    };
    match (at("in"), at("out")) {
        (Some(sent), Some(answered)) => Ok((sent, answered)),
        _ => Err(BedError::Guest(format!("no times of {}: {times}", operation.name())).into()),
    }
}

fn through_socket(guest: &Guest, freeze: bool) -> Step<(u64, u64)> {
    let command = if freeze {
        "guest-fsfreeze-freeze"
    } else {
        "guest-fsfreeze-thaw"
    };
    let argv = ["/sbin/hv-testguest", "qga", SOCKET, command];
    let said = guest.exec(&argv, Duration::from_secs(300))?.stdout;
    let mut words = said.splitn(3, ' ');
    let mut time = || words.next().and_then(|word| word.parse().ok());
    match (time(), time()) {
        (Some(sent), Some(answered)) if said.contains("\"return\"") => Ok((sent, answered)),
        _ => Err(Failure::Promise(format!(
            "qemu-ga refuses {command}: {said}"
        ))),
    }
}
