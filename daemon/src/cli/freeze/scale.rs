//! One axis for milliseconds beside seconds: each part between two moments is as wide as the logarithm of its length.

use std::ops::Range;
use std::time::Duration;

use crate::quiesce::report::Span;

/// What is shorter than this is hardly given any room.
const SHORT: f64 = 0.000_1;

/// From times to columns; never backwards.
#[derive(Debug)]
pub(super) struct Scale {
    /// Moments in their order, and where they are.
    edges: Vec<(Duration, f64)>,
    width: usize,
}

impl Scale {
    /// An axis of `width` columns on which everything that begins or ends one of `parts` is a moment.
    pub(super) fn new(parts: impl IntoIterator<Item = Span>, width: usize) -> Self {
        let mut moments = vec![Duration::ZERO];
        for part in parts {
            moments.extend([part.start, part.end()]);
        }
        moments.sort_unstable();
        moments.dedup();
        let mut total = 0.0;
        let mut before = Duration::ZERO;
        let mut edges = Vec::with_capacity(moments.len());
        for moment in moments {
            total += logarithm((moment - before).as_secs_f64() / SHORT);
            edges.push((moment, total));
            before = moment;
        }
        let columns = f64::from(u32::try_from(width).unwrap_or(u32::MAX));
        if total > 0.0 {
            for (_, place) in &mut edges {
                *place *= columns / total;
            }
        }
        Self { edges, width }
    }

    /// The column in which `time` is.
    pub(super) fn column(&self, time: Duration) -> usize {
        let mut before = (Duration::ZERO, 0.0);
        for edge in &self.edges {
            if time <= edge.0 {
                let part = (edge.0 - before.0).as_secs_f64();
                let done = time.saturating_sub(before.0).as_secs_f64();
                let share = if part > 0.0 { done / part } else { 0.0 };
                return floor(before.1 + share * (edge.1 - before.1)).min(self.last());
            }
            before = *edge;
        }
        self.last()
    }

    /// The columns of what lasted from `start` to `end`: at least one.
    pub(super) fn columns(&self, start: Duration, end: Duration) -> Range<usize> {
        let first = self.column(start);
        let end = if end >= self.end() {
            self.width
        } else {
            self.column(end)
        };
        first..end.max(first + 1)
    }

    fn end(&self) -> Duration {
        self.edges.last().map_or(Duration::ZERO, |edge| edge.0)
    }

    fn last(&self) -> usize {
        self.width.saturating_sub(1)
    }
}

/// Of 1 + `length`, to base 2 and straight between powers of two. The standard library's would be the program's one use of
/// the C library's mathematics, which is as large as a third of the program.
fn logarithm(length: f64) -> f64 {
    let mut rest = 1.0 + length;
    let mut whole = 0.0;
    while rest >= 2.0 {
        rest /= 2.0;
        whole += 1.0;
    }
    whole + (rest - 1.0)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a column of a terminal, rounded down"
)]
fn floor(place: f64) -> usize {
    // A hair more, so that an edge is not lost to rounding.
    (place + 1e-9) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(start: u64, duration: u64) -> Span {
        Span {
            start: Duration::from_millis(start),
            duration: Duration::from_millis(duration),
        }
    }

    #[test]
    fn a_freeze_of_five_milliseconds_is_seen_beside_a_hold_of_five_seconds() {
        let (freeze, hold) = (ms(0, 5), ms(5, 5_000));
        let scale = Scale::new([freeze, hold], 40);
        let freeze = scale.columns(freeze.start, freeze.end());
        let hold = scale.columns(hold.start, hold.end());
        assert_eq!((freeze.clone(), hold.clone()), (0..10, 10..40));
    }

    #[test]
    fn an_axis_without_length_is_no_division_by_zero() {
        let scale = Scale::new([ms(0, 0)], 10);
        assert_eq!(scale.columns(Duration::ZERO, Duration::ZERO), 0..10);
        assert_eq!(Scale::new([], 10).column(Duration::from_secs(1)), 9);
    }

    proptest! {
        #[test]
        fn later_is_never_further_left_and_nothing_leaves_the_axis(
            parts in prop::collection::vec((0_u64..10_000, 0_u64..10_000), 0..20),
            times in prop::collection::vec(0_u64..25_000, 2..20),
            width in 1_usize..300,
        ) {
            let scale = Scale::new(parts.iter().map(|(start, duration)| ms(*start, *duration)), width);
            let mut times: Vec<_> = times.into_iter().map(Duration::from_millis).collect();
            times.sort_unstable();
            let columns: Vec<_> = times.iter().map(|time| scale.column(*time)).collect();
            prop_assert!(columns.is_sorted());
            for pair in times.windows(2) {
                let range = scale.columns(pair[0], pair[1]);
                prop_assert!(!range.is_empty() && range.end <= width);
            }
        }
    }
}
