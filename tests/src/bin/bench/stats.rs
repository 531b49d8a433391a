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
}
