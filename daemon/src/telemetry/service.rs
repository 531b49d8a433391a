//! What systemd is told (man 3 sd_notify). Nothing during a hold: systemd itself may wait on what is frozen.

use std::time::Duration;

use sd_notify::NotifyState;

/// The agent is registered and serves the host.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The agent ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The agent's end, or its start, takes at least this much longer than it may.
pub fn needs_time(time: Duration) {
    tell(&[NotifyState::ExtendTimeoutUsec(
        u32::try_from(time.as_micros()).unwrap_or(u32::MAX),
    )]);
}

/// One line for `systemctl status`.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Not started by systemd: nobody to tell.
    let _ = sd_notify::notify(states);
}
