//! Whether one more flush pass pays: a pure decision, from how the last one went.

use std::time::Duration;

/// Writers that dirty faster than the disks write would make passes go on for ever.
const MOST: u32 = 3;

/// A pass that was quicker than this leaves little to the freeze itself.
const QUICK: Duration = Duration::from_millis(100);

/// What is left may take the freeze this long.
const SHORT: Duration = Duration::from_millis(20);

/// How a pass of `syncfs` on everything went.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Passes so far, with this one.
    pub number: u32,
    /// How long it took.
    pub took: Duration,
    /// Pages that waited to be written before it, and after it; `None` where nobody knows.
    pub waiting: Option<(u64, u64)>,
}

impl Pass {
    /// The freeze writes what is left anyway, with writers asleep. So one more pass pays when the last one was slow, and
    /// promises to find less than half of what that one found, yet more than a moment's work.
    #[must_use]
    pub fn pays_again(&self) -> bool {
        if self.number >= MOST || self.took < QUICK {
            return false;
        }
        let Some((before, after)) = self.waiting else {
            return true;
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "an estimate needs no more than 52 bits"
        )]
        let share = after as f64 / before.max(1) as f64;
        share < 0.5 && self.took.mul_f64(share) >= SHORT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(number: u32, ms: u64, waiting: Option<(u64, u64)>) -> bool {
        let took = Duration::from_millis(ms);
        Pass {
            number,
            took,
            waiting,
        }
        .pays_again()
    }

    #[test]
    fn a_slow_pass_that_leaves_less_than_half_but_not_nothing_is_repeated() {
        assert!(pass(1, 7000, Some((10_000, 1_000))));
        assert!(pass(2, 700, Some((1_000, 300))));
    }

    #[test]
    fn a_quick_pass_is_the_last() {
        assert!(!pass(1, 90, Some((10_000, 4_000))));
        assert!(!pass(1, 90, None));
    }

    #[test]
    fn a_pass_that_leaves_a_moments_work_is_the_last() {
        assert!(!pass(1, 300, Some((10_000, 10))));
        assert!(!pass(1, 300, Some((0, 0))));
    }

    #[test]
    fn writers_as_fast_as_the_disks_do_not_make_it_go_on() {
        assert!(!pass(1, 3000, Some((10_000, 9_000))));
        assert!(!pass(1, 3000, Some((10, 20_000))));
    }

    #[test]
    fn without_counters_time_alone_decides_and_the_number_is_bounded() {
        assert!(pass(1, 300, None) && pass(2, 300, None));
        assert!(!pass(3, 300, None));
        assert!(!pass(3, 7000, Some((10_000, 1_000))));
    }
}
