//! Measures hv-vssd and its peers on the same disks under the same load, one after the other in one guest.
//! docs/performance.md says what is measured and how to read it; `bench docs` renews its figures.

mod case;
mod contender;
mod idle;
mod measure;
mod output;
mod peer;
mod results;
mod settings;
mod stats;
mod svg;

use std::process::ExitCode;

use ::tests::error::{BedError, Context, Step};
use ::tests::guest::{Guest, Plan};

use case::CASES;
use contender::Contender;
use results::{Outcome, Results};
use settings::Settings;

fn main() -> ExitCode {
    let into_docs = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("docs") => true,
        Some(_) => {
            eprintln!("usage: bench [docs]\n{}", settings::HELP);
            return ExitCode::from(2);
        }
    };
    let outcome = Settings::from_environment()
        .map_err(tests::error::Failure::from)
        .and_then(|settings| {
            let results = run(&settings)?;
            Ok(output::write(&results, into_docs)?)
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Step<Results> {
    let scratch = tempfile::tempdir().doing(|| "making a scratch directory".into())?;
    let mut disks = case::disks();
    let (peer, peer_version) = peer::disk(scratch.path())?;
    disks.push(peer);
    let mut guest = Guest::boot(&Plan {
        kernel: settings.kernel,
        with_hv_vssd: true,
        disks: &disks,
        name: "bench".into(),
    })?;
    peer::install(&guest, disks.len() - 1)?;
    guest.plug_in()?;
    guest.host()?.negotiate()?;
    measure::keep_dirty(&guest)?;
    let kernel = guest.sh("uname -r")?;
    let mut results = Results {
        about: format!(
            "Linux {}, two emulated processors, {} repetitions; median (range). qemu-ga {peer_version}.",
            kernel.trim(),
            settings.repetitions
        ),
        ..Results::default()
    };
    for case in CASES.iter().filter(|case| settings.wants(case)) {
        eprintln!("{}: {}", case.letter, case.title);
        case.set_up(&guest)?;
        for agent in settings.agents(case) {
            let outcome = measured(&mut guest, *case, agent, settings, &mut results)?;
            results.outcomes.push(outcome);
        }
        case.tear_down(&guest)?;
    }
    if settings.idle_seconds > 0 {
        CASES.first().map_or(Ok(()), |case| case.set_up(&guest))?;
        for agent in settings.agents_idle() {
            eprintln!("idle: {}", agent.name());
            match idle::measure(&mut guest, agent, settings.idle_seconds) {
                Ok(idle) => results.idle.push((agent, idle)),
                Err(error) => eprintln!("  {}: {error}", agent.name()),
            }
        }
    }
    let dir = guest.dir().to_path_buf();
    drop(guest);
    std::fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
    Ok(results)
}

/// All repetitions of a case with one agent, or as many as it serves.
fn measured(
    guest: &mut Guest,
    case: case::Case,
    agent: Contender,
    settings: &Settings,
    results: &mut Results,
) -> Result<Outcome, BedError> {
    let mut outcome = Outcome {
        case,
        agent,
        samples: Vec::new(),
        failure: None,
    };
    let mut measure = || -> Step<()> {
        results.starts.push((agent, agent.start(guest)?));
        measure::start_load(guest, &case)?;
        for _ in 0..settings.repetitions {
            let sample = measure::checkpoint(guest, &case, agent)?;
            eprintln!("  {}: {}", agent.name(), sample.line());
            outcome.samples.push(sample);
        }
        Ok(())
    };
    if let Err(error) = measure() {
        eprintln!("  {}: {error}", agent.name());
        outcome.failure = Some(error.to_string());
    }
    measure::stop_load(guest, &case)?;
    if let Err(error) = agent.stop(guest) {
        eprintln!("  {}: {error}", agent.name());
    }
    let said = guest.job(agent.name())?.output;
    for line in said.lines().filter(|line| line.contains("held for")) {
        eprintln!("    {line}");
    }
    Ok(outcome)
}
