//! Measures hv-vssd and its peers on the same disks under the same load, one after the other in one guest.
//! docs/performance.md says what is measured and how to read it; `bench docs` renews its figures.

mod case;
mod cluster;
mod contender;
mod database;
mod idle;
mod kept;
mod measure;
mod output;
mod packages;
mod programs;
mod results;
mod settings;
mod stats;
mod svg;
mod tables;

use std::hash::{DefaultHasher, Hasher};
use std::process::ExitCode;
use std::time::Instant;

use ::tests::assets;
use ::tests::error::{BedResult, Context, Step};
use ::tests::guest::{Guest, Plan};

use case::{CASES, Case, Load};
use contender::Contender;
use kept::Kept;
use programs::Programs;
use results::{About, Measured, MeasuredIdle, Outcome, Results};
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
            if into_docs {
                settings.may_go_into_docs()?;
            }
            let results = run(&settings)?;
            if !settings.is_kept() {
                print!("{}", tables::markdown(&results));
                return Ok(());
            }
            let kept = Kept::of(settings.kernel)?;
            Ok(output::write(&results, kept.dir(), into_docs)?)
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
    if settings.wants_nothing() {
        // Tables and picture once more.
        return Ok(Kept::of(settings.kernel)?.all()?);
    }
    eprintln!("guest {}", assets::prepare(settings.kernel)?);
    let programs = Programs::prepare()?;
    let with_database = CASES
        .iter()
        .any(|case| case.load == Load::Commits && settings.wants(case));
    let disks = case::disks(&programs, with_database);
    let mut guest = Guest::boot(&Plan {
        kernel: settings.kernel,
        with_hv_vssd: true,
        disks: &disks,
        name: "bench".into(),
    })?;
    Programs::install(&guest, disks.len() - 1, with_database)?;
    guest.plug_in()?;
    guest.host()?.negotiate()?;
    measure::keep_dirty(&guest)?;
    let about = about(&guest, &programs)?;
    let kept = Kept::of(settings.kernel)?;
    let mut results = Results::default();
    for case in CASES.into_iter().filter(|case| settings.wants(case)) {
        eprintln!("{}: {}", case.letter, case.title);
        let measured = one_case(&mut guest, case, settings, &about)?;
        eprintln!("  {} s", measured.took.as_secs());
        if settings.is_kept() {
            kept.put(&case, &measured)?;
        }
        results.cases.push((case, measured));
    }
    if settings.idle_seconds > 0 {
        let measured = all_idle(&mut guest, settings, about)?;
        if settings.is_kept() {
            kept.put_idle(&measured)?;
        }
        results.idle = Some(measured);
    }
    let dir = guest.dir().to_path_buf();
    drop(guest);
    std::fs::remove_dir_all(&dir).doing(|| format!("removing {}", dir.display()))?;
    if settings.is_kept() {
        results = kept.all()?;
    }
    Ok(results)
}

fn about(guest: &Guest, programs: &Programs) -> BedResult<About> {
    let program = tests::paths::hv_vssd();
    let bytes = std::fs::read(&program).doing(|| format!("reading {}", program.display()))?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    let version = guest.sh("/usr/sbin/hv-vssd --version")?;
    // Enough to tell builds apart.
    let fingerprint = hasher.finish() >> 40;
    Ok(About {
        kernel: guest.sh("uname -r")?.trim().to_owned(),
        hv_vssd: format!("{} (program {fingerprint:06x})", version.trim()),
        others: programs.versions.clone(),
    })
}

fn one_case(
    guest: &mut Guest,
    case: Case,
    settings: &Settings,
    about: &About,
) -> BedResult<Measured> {
    let began = Instant::now();
    case.set_up(guest)?;
    let mut outcomes = Vec::new();
    for agent in settings.agents(&case) {
        outcomes.push(one_agent(guest, case, agent, settings)?);
    }
    case.tear_down(guest)?;
    Ok(Measured {
        about: about.clone(),
        outcomes,
        took: began.elapsed(),
    })
}

/// All repetitions of a case with one agent, or as many as it serves.
fn one_agent(
    guest: &mut Guest,
    case: Case,
    agent: Contender,
    settings: &Settings,
) -> BedResult<Outcome> {
    let mut outcome = Outcome {
        agent,
        samples: Vec::new(),
        failure: None,
    };
    let mut measure = || -> Step<()> {
        agent.start(guest)?;
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

fn all_idle(guest: &mut Guest, settings: &Settings, about: About) -> BedResult<MeasuredIdle> {
    // Something to freeze once.
    CASES.first().map_or(Ok(()), |case| case.set_up(guest))?;
    let mut agents = Vec::new();
    for agent in Contender::AGENTS {
        eprintln!("idle: {}", agent.name());
        match idle::measure(guest, agent, settings.idle_seconds) {
            Ok(idle) => agents.push((agent, idle)),
            Err(error) => eprintln!("  {}: {error}", agent.name()),
        }
    }
    Ok(MeasuredIdle { about, agents })
}
