//! Medians and ranges.

use std::time::Duration;

/// Of some measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) median: Duration,
    pub(crate) least: Duration,
    pub(crate) most: Duration,
}

impl Summary {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = Duration>) -> Option<Self> {
        let mut values: Vec<Duration> = values.into_iter().collect();
        values.sort();
        let (below, above) = (
            values.get(values.len().checked_sub(1)? / 2)?,
            values.get(values.len() / 2)?,
        );
        Some(Self {
            median: (*below + *above) / 2,
            least: *values.first()?,
            most: *values.last()?,
        })
    }
}

/// The least time that is measured of stalls.
const FLOOR: Duration = Duration::from_millis(2);

/// How many times one figure another is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ratio {
    /// Of the medians.
    median: f64,
    /// Of the shortest time of the one and the longest of the other: no two runs have less.
    least: f64,
}

impl Ratio {
    /// `one` over `other`.
    pub(crate) fn of(one: Summary, other: Summary) -> Self {
        let over = |one: Duration, other: Duration| {
            one.max(FLOOR).as_secs_f64() / other.max(FLOOR).as_secs_f64()
        };
        Self {
            median: over(one.median, other.median),
            least: over(one.least, other.most),
        }
    }

    /// That of the medians, as text.
    pub(crate) fn median(self) -> String {
        digits(self.median)
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (median, least) = (digits(self.median), digits(self.least));
        write!(f, "**{median}** (≥ {least})")
    }
}

fn digits(number: f64) -> String {
    match number {
        _ if number >= 99.95 => format!("{number:.0}"),
        _ if number >= 9.995 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

/// Three digits with their unit.
pub(crate) fn text(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    match ms {
        // Faster ones are not written down.
        0.0 => "< 2 ms".to_owned(),
        _ if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        _ if ms >= 1_000.0 => format!("{:.2} s", ms / 1e3),
        _ if ms >= 100.0 => format!("{ms:.0} ms"),
        _ if ms >= 10.0 => format!("{ms:.1} ms"),
        _ => format!("{ms:.2} ms"),
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "**{}** ({} – {})",
            text(self.median),
            text(self.least),
            text(self.most)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_has_the_middle_and_both_ends() {
        let summary = Summary::of([30, 10, 2000].map(Duration::from_millis)).unwrap();
        assert_eq!(summary.to_string(), "**30.0 ms** (10.0 ms – 2.00 s)");
        let even = Summary::of([30, 10].map(Duration::from_millis)).unwrap();
        assert_eq!(even.median, Duration::from_millis(20));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn a_ratio_has_the_worst_pair_of_runs_beside_the_medians() {
        let ms = |values: [u64; 3]| Summary::of(values.map(Duration::from_millis)).unwrap();
        let ratio = Ratio::of(ms([7000, 8000, 9000]), ms([30, 50, 70]));
        assert_eq!(ratio.to_string(), "**160** (≥ 100)");
        let nothing = Ratio::of(ms([100, 100, 100]), ms([0, 0, 0]));
        assert_eq!(nothing.median(), "50.0");
    }
}
