//! What is measured, from the environment.

use ::tests::assets::Kernel;
use ::tests::error::{BedError, BedResult};

use crate::case::{CASES, Case};
use crate::contender::Contender;

/// The variables.
pub(crate) const HELP: &str = "\
HV_BENCH_REPETITIONS    checkpoints of each case and agent (5)
HV_BENCH_CASES          letters of the cases to be measured (abcdeEfg); empty: none, what is kept is shown again
HV_BENCH_KERNEL         6.1 or 6.12 (6.1)
HV_BENCH_IDLE_SECONDS   how long to look at an idle agent; 0: not at all (60, and 0 with HV_BENCH_CASES)
HV_BENCH_ALL_VARIANTS   1: hv-vssd with parts switched off in every case, not in case a alone
HV_BENCH_AGENTS         names of agents, separated by commas (all); such a run is shown and not kept";

/// They, read.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) repetitions: u32,
    pub(crate) kernel: Kernel,
    pub(crate) idle_seconds: u64,
    cases: Option<String>,
    agents: Option<String>,
    all_variants: bool,
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number<T: std::str::FromStr>(name: &str, default: &str) -> BedResult<T> {
    let text = variable(name, default);
    text.parse()
        .map_err(|_| BedError::Setup(format!("{name} is no number: {text}")))
}

impl Settings {
    /// Reads the environment.
    pub(crate) fn from_environment() -> BedResult<Self> {
        let series = variable("HV_BENCH_KERNEL", "6.1");
        let kernel = Kernel::ALL
            .into_iter()
            .find(|kernel| kernel.series() == series);
        let cases = std::env::var("HV_BENCH_CASES").ok();
        let known = |letter: char| CASES.iter().any(|case| case.letter == letter);
        if let Some(letter) = cases
            .iter()
            .flat_map(|all| all.chars())
            .find(|c| !known(*c))
        {
            return Err(BedError::Setup(format!(
                "HV_BENCH_CASES: there is no case {letter}"
            )));
        }
        let idle = if cases.is_some() { "0" } else { "60" };
        Ok(Self {
            repetitions: number("HV_BENCH_REPETITIONS", "5")?,
            kernel: kernel.ok_or_else(|| BedError::Setup(format!("no kernel {series}")))?,
            idle_seconds: number("HV_BENCH_IDLE_SECONDS", idle)?,
            cases,
            agents: std::env::var("HV_BENCH_AGENTS").ok(),
            all_variants: variable("HV_BENCH_ALL_VARIANTS", "") == "1",
        })
    }

    pub(crate) fn wants(&self, case: &Case) -> bool {
        let named = self.cases.as_ref();
        named.is_none_or(|letters| letters.contains(case.letter))
    }

    /// Only what is kept is to be shown.
    pub(crate) fn wants_nothing(&self) -> bool {
        self.cases.as_ref().is_some_and(String::is_empty) && self.idle_seconds == 0
    }

    /// # Errors
    /// What is measured is not what the page compares; the message says why.
    pub(crate) fn may_go_into_docs(&self) -> BedResult<()> {
        if self.is_kept() {
            return Ok(());
        }
        let text = "HV_BENCH_AGENTS is for experiments: the page compares all agents of one run";
        Err(BedError::Setup(text.into()))
    }

    /// Whether agents are compared: what a part of them did is not kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.agents.is_none()
    }

    /// Who is measured in a case.
    pub(crate) fn agents(&self, case: &Case) -> Vec<Contender> {
        let is_meant = |agent: &Contender| {
            let is_named = |names: &String| names.split(',').any(|name| name == agent.name());
            self.agents.as_ref().map_or_else(
                || self.all_variants || case.letter == 'a' || !agent.is_variant(),
                is_named,
            )
        };
        Contender::ALL.into_iter().filter(is_meant).collect()
    }
}
