//! How long to wait before the channel is opened again.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Doubles from 50 ms to 5 s; starts anew after half a minute without an attempt.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    last: Option<(Instant, Duration)>,
}

impl Backoff {
    /// When the next attempt is due, asked for at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Instant {
        let delay = match self.last {
            Some((at, delay)) if now.saturating_duration_since(at) < 6 * LONGEST => {
                (delay * 2).min(LONGEST)
            }
            _ => FIRST,
        };
        self.last = Some((now, delay));
        now + delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_its_bound_and_starts_anew_after_a_quiet_time() {
        let mut backoff = Backoff::default();
        let mut now = Instant::now();
        let mut delays = vec![];
        for _ in 0..10 {
            let due = backoff.next(now);
            delays.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(delays[..3], [50, 100, 200]);
        assert_eq!(delays[9], 5_000);
        now += Duration::from_secs(31);
        assert_eq!((backoff.next(now) - now).as_millis(), 50);
    }
}
