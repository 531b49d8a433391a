//! Kernels that panic when a program waits long: whoever writes in a hold waits like that, so freeze and hold end before
//! (`kernel/hung_task.c`; Documentation/admin-guide/sysctl/kernel.rst).

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::engine::Limits;

/// How long before the panic a hold ends: a thaw may take its time, and the guardian comes later still.
const MARGIN: Duration = Duration::from_secs(20);

/// What the guardian grants the agent beyond its own limits.
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// How long a program may wait before the kernel panics; `None` if it never does. `proc` is `/proc`.
#[must_use]
pub fn panics_after(proc: &Path) -> Option<Duration> {
    let number = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(proc.join("sys/kernel").join(name)).ok()?;
        text.trim().parse().ok()
    };
    // From Linux 6.19 on a number of programs: one is enough to end a hold for.
    let panics = number("hung_task_panic")? > 0;
    let after = number("hung_task_timeout_secs")?;
    (panics && after > 0).then(|| Duration::from_secs(after))
}

/// The limits of one checkpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce {
    /// With a freeze and a hold that end in time.
    pub(super) limits: Limits,
    /// From the first `FIFREEZE` to the first thaw; `None` where nothing panics.
    most: Option<Duration>,
    /// What the guardian grants beyond.
    pub(super) grace: Duration,
}

impl InForce {
    /// `limits` as they are, or cut short for a kernel that panics after this time.
    pub(super) fn new(limits: Limits, panics_after: Option<Duration>) -> Self {
        let Some(after) = panics_after else {
            return Self {
                limits,
                most: None,
                grace: GRACE,
            };
        };
        let most = frozen_at_most(after);
        let limits = Limits {
            // What is left is the hold's.
            freeze: limits.freeze.min(most / 2),
            hold: limits.hold.min(most),
            ..limits
        };
        Self {
            limits,
            most: Some(most),
            // In the middle between the agent's limit and the panic.
            grace: GRACE.min((after - most) / 2),
        }
    }

    /// How long the guardian waits at the beginning of the freeze.
    pub(super) fn guarded(&self) -> Duration {
        let whole = self.limits.freeze + self.limits.hold;
        self.most.map_or(whole, |most| whole.min(most)) + self.grace
    }

    /// How long the hold may last, when the freeze has taken so long.
    pub(super) fn hold(&self, freeze: Duration) -> Duration {
        let left = |most: Duration| self.limits.hold.min(most.saturating_sub(freeze));
        self.most.map_or(self.limits.hold, left)
    }
}

/// How long anything may be frozen where the kernel panics after this time.
#[must_use]
pub fn frozen_at_most(panics_after: Duration) -> Duration {
    panics_after.saturating_sub(MARGIN.min(panics_after / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(all: (u64, u64, u64)) -> Limits {
        let (flush, freeze, hold) = all;
        Limits {
            flush: Duration::from_secs(flush),
            freeze: Duration::from_secs(freeze),
            hold: Duration::from_secs(hold),
        }
    }

    #[test]
    fn agent_and_guardian_thaw_before_the_panic_however_long_the_freeze_takes() {
        for after in (1..=40).chain([60, 120, 600, 100_000]) {
            for limits in [(300, 60, 120), (1, 1, 1), (600, 180, 600)] {
                let (after, limits) = (Duration::from_secs(after), seconds(limits));
                let force = InForce::new(limits, Some(after));
                assert!(force.limits.freeze <= limits.freeze && force.limits.flush == limits.flush);
                assert!(force.guarded() < after, "guardian at {after:?}: {force:?}");
                let mut freeze = Duration::ZERO;
                while freeze <= force.limits.freeze {
                    let hold = force.hold(freeze);
                    assert!(hold <= limits.hold);
                    assert!(freeze + hold + force.grace < after, "{after:?}, {freeze:?}");
                    freeze += Duration::from_millis(500);
                }
                assert!(force.hold(force.limits.freeze) > Duration::ZERO);
            }
        }
    }

    #[test]
    fn limits_stay_as_they_are_where_nothing_panics_or_there_is_time() {
        let limits = seconds((300, 60, 120));
        let force = InForce::new(limits, None);
        assert_eq!(force.limits, limits);
        assert_eq!(force.guarded(), Duration::from_secs(190));
        assert_eq!(force.hold(Duration::from_secs(50)), limits.hold);
        let force = InForce::new(limits, Some(Duration::from_secs(300)));
        assert_eq!(force.limits, limits);
        assert_eq!(force.hold(Duration::from_secs(50)), limits.hold);
    }

    #[test]
    fn the_switches_are_read_as_the_kernel_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let proc = directory.path();
        assert_eq!(panics_after(proc), None, "a kernel without the watch");
        fs::create_dir_all(proc.join("sys/kernel")).unwrap();
        for (panic, timeout, expected) in [
            ("0\n", "120\n", None),
            ("1\n", "120\n", Some(120)),
            ("3\n", "240\n", Some(240)),
            ("1\n", "0\n", None),
            ("", "", None),
        ] {
            fs::write(proc.join("sys/kernel/hung_task_panic"), panic).unwrap();
            fs::write(proc.join("sys/kernel/hung_task_timeout_secs"), timeout).unwrap();
            assert_eq!(panics_after(proc), expected.map(Duration::from_secs));
        }
    }
}
