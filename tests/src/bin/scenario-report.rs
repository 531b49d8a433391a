//! Renders the scenarios' results: `scenario-report` prints the table and writes it to
//! `report.md` in the bed's directory; `scenario-report clear` forgets earlier runs.

use std::process::ExitCode;

use tests::error::{BedResult, Context};
use tests::{paths, report};

fn main() -> ExitCode {
    let outcome = match std::env::args().nth(1).as_deref() {
        None => render(),
        Some("clear") => report::clear(),
        Some(_) => {
            eprintln!("usage: scenario-report [clear]");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scenario-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn render() -> BedResult<()> {
    let lines = report::lines()?;
    let mut text = report::table(&lines);
    text.push('\n');
    for agent in ["hv-vssd", "hv_vss_daemon"] {
        let (passed, gaps, failed) = report::counts(&lines, agent);
        text.push_str(&format!(
            "{agent}: {passed} kept, {gaps} not kept as declared, {failed} failed.  \n"
        ));
    }
    print!("{text}");
    let file = paths::testbed().join("report.md");
    std::fs::write(&file, text).doing(|| format!("writing {}", file.display()))?;
    println!("({})", file.display());
    Ok(())
}
