//! All that was measured.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{Case, Load};
use crate::contender::Contender;
use crate::idle::Idle;
use crate::measure::Sample;
use crate::stats::{Ratio, Summary};

/// What was measured with what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    /// The kernel's release.
    pub(crate) kernel: String,
    /// Version and fingerprint of the program.
    pub(crate) hv_vssd: String,
    /// Versions of the others.
    pub(crate) others: String,
}

/// A case with one agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) agent: Contender,
    pub(crate) samples: Vec<Sample>,
    /// Why there are no more.
    pub(crate) failure: Option<String>,
}

/// A case with all agents, of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) about: About,
    pub(crate) outcomes: Vec<Outcome>,
    /// With everything that had to be prepared.
    pub(crate) took: Duration,
}

/// All agents idle, of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct MeasuredIdle {
    pub(crate) about: About,
    pub(crate) agents: Vec<(Contender, Idle)>,
}

/// Cases in their order, perhaps of several runs.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) cases: Vec<(Case, Measured)>,
    pub(crate) idle: Option<MeasuredIdle>,
}

/// What is shown of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    Stall,
    HotBackup,
    Freeze,
    Writing,
    Thaw,
    Cpu,
}

impl Figure {
    pub(crate) const ALL: [Self; 6] = [
        Self::Stall,
        Self::HotBackup,
        Self::Freeze,
        Self::Writing,
        Self::Thaw,
        Self::Cpu,
    ];

    fn of(self, sample: &Sample) -> Option<Duration> {
        match self {
            Self::Stall => Some(sample.worst_stall().length),
            Self::HotBackup => sample.hot_backup,
            Self::Freeze => Some(sample.freeze),
            Self::Writing => Some(sample.writing),
            Self::Thaw => Some(sample.thaw),
            Self::Cpu => Some(sample.cpu),
        }
    }
}

impl Outcome {
    pub(crate) fn summary(&self, figure: Figure) -> Option<Summary> {
        // Without an agent nothing is asked, and there is nothing to time but writes.
        if self.agent == Contender::Nobody && figure != Figure::Stall {
            return None;
        }
        Summary::of(self.samples.iter().filter_map(|sample| figure.of(sample)))
    }

    /// Stalls of small writes on one of the case's disks.
    pub(crate) fn stall_of_disk(&self, number: usize) -> Option<Summary> {
        let stalls = self.samples.iter();
        Summary::of(stalls.filter_map(|sample| Some(sample.stalls.get(number)?.length)))
    }
}

impl Measured {
    pub(crate) fn of(&self, agent: Contender) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.agent == agent)
    }

    /// The agents and variants, without "nobody".
    pub(crate) fn agents(&self) -> Vec<&Outcome> {
        let all = self.outcomes.iter();
        all.filter(|outcome| outcome.agent != Contender::Nobody)
            .collect()
    }

    /// The least a FREEZE can take: as the case says, or else the least that any agent had to write.
    /// `None` where next to nothing is dirty.
    pub(crate) fn least(&self, case: &Case) -> Option<Duration> {
        let written = self.agents().into_iter();
        let written = written.filter_map(|outcome| outcome.summary(Figure::Writing));
        let least = written.map(|summary| summary.median).min();
        let of_load = least.filter(|_| case.load != Load::Nothing);
        case.least().or(of_load)
    }

    /// How many times hv-vssd's figure another's is.
    pub(crate) fn times_ours(&self, outcome: &Outcome, figure: Figure) -> Option<Ratio> {
        if outcome.agent == Contender::HvVssd {
            return None;
        }
        let ours = self.of(Contender::HvVssd)?.summary(figure)?;
        Some(Ratio::of(outcome.summary(figure)?, ours))
    }
}

#[cfg(test)]
pub(crate) mod examples {
    use super::*;
    use crate::measure::Stall;

    /// One checkpoint in which everything took `ms`.
    fn sample(ms: u64) -> Sample {
        let time = Duration::from_millis(ms);
        let stall = Stall {
            length: time,
            began_ms: 0,
        };
        Sample {
            hot_backup: None,
            freeze: time,
            writing: time,
            thaw: time,
            stalls: vec![stall],
            transaction: None,
            cpu: time,
        }
    }

    /// Of a build of hv-vssd: agents, each with its times in milliseconds; none: it failed.
    pub(crate) fn measured(build: &str, agents: &[(Contender, &[u64])]) -> Measured {
        let outcome = |(agent, times): &(Contender, &[u64])| Outcome {
            agent: *agent,
            samples: times.iter().map(|ms| sample(*ms)).collect(),
            failure: times.is_empty().then(|| "no answer".into()),
        };
        Measured {
            about: About {
                kernel: "6.1".into(),
                hv_vssd: build.into(),
                others: "others".into(),
            },
            outcomes: agents.iter().map(outcome).collect(),
            took: Duration::from_secs(61),
        }
    }
}
