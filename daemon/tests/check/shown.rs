//! How findings are shown: as text, as JSON, and in the documents.

use std::fs;
use std::path::Path;

use hv_vssd::check::{Cause, Outcome};

use super::Guest;

#[test]
fn the_text_fits_a_terminal_and_json_has_its_shape() {
    let guest = Guest::healthy();
    guest.remove("proc/locks").remove("proc/100");
    let report = guest.report();
    let text = report.render();
    assert!(
        text.lines().all(|line| line.chars().count() <= 96),
        "{text}"
    );
    assert!(
        text.starts_with("The host gets no production checkpoint"),
        "{text}"
    );
    assert!(
        text.contains(
            "\n  error    hv-vssd does not run. [agent-not-running]\n           → systemctl"
        ),
        "{text}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["outcome"], "fallback");
    assert_eq!(json["explanation"], Outcome::Fallback.explanation());
    assert_eq!(json["findings"][0]["code"], "agent-not-running");
    assert_eq!(json["findings"][0]["severity"], "error");
    let mut keys: Vec<&String> = json["findings"][0].as_object().unwrap().keys().collect();
    keys.sort();
    assert_eq!(keys, ["code", "finding", "remedy", "severity"]);
}

/// docs/check.md has each finding once, and no other.
#[test]
fn the_docs_name_every_finding() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/check.md");
    let docs = fs::read_to_string(docs).unwrap();
    let (_, findings) = docs.split_once("\n## Findings\n").unwrap();
    let documented: Vec<&str> = findings
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code)
        .collect();
    let known: Vec<&str> = Cause::ALL.iter().map(|cause| cause.code()).collect();
    assert_eq!(documented, known);
}
