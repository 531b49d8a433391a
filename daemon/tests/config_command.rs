//! `hv-vssd config` as a person or a script meets it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

/// A configuration with a drop-in, in a directory of its own.
struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new(main: &str, drop_in: &str) -> Self {
        let place = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::write(place.main(), main).unwrap();
        fs::create_dir(place.drop_in().parent().unwrap()).unwrap();
        fs::write(place.drop_in(), drop_in).unwrap();
        place
    }

    fn main(&self) -> PathBuf {
        self.directory.path().join("c.toml")
    }

    fn drop_in(&self) -> PathBuf {
        self.directory.path().join("c.toml.d/10-x.toml")
    }

    fn config(&self, options: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
            .arg("config")
            .arg("--config")
            .arg(self.main())
            .args(options)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Output with the place's own directory left out.
    fn text(&self, bytes: &[u8]) -> String {
        let directory = format!("{}/", self.directory.path().display());
        String::from_utf8(bytes.to_vec())
            .unwrap()
            .replace(&directory, "")
    }
}

#[test]
fn every_value_in_force_is_shown_with_its_place() {
    let place = Place::new(
        "[limits]\nhold = 30\nflush = 60\n",
        "limits.hold = 40\n[hooks.by_name.\"10-db\"]\nlimit = 20\n",
    );
    for options in [&[][..], &["--show"]] {
        let output = place.config(options);
        assert!(output.status.success());
        let text = place.text(&output.stdout);
        for line in [
            "strictness = \"normal\"  # default",
            "flush = 60  # c.toml:3",
            "freeze = 60  # default",
            "hold = 40  # c.toml.d/10-x.toml:1",
            "exclude_types = []  # default",
            "[hooks.by_name.\"10-db\"]",
            "limit = 20  # c.toml.d/10-x.toml:3",
            "#textfile =  # default",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
        }
        // What is shown can be used as a configuration.
        let again = Place::new(&text, "");
        let shown = again.text(&again.config(&[]).stdout);
        assert!(shown.contains("\nhold = 40  # c.toml:"), "{shown}");
    }
}

#[test]
fn json_has_the_documented_shape() {
    let place = Place::new("limits.hold = 30\n", "");
    let output = place.config(&["--json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    let main = place.main();
    assert_eq!(shown["files"], json!([main, place.drop_in()]));
    assert_eq!(shown["ignored"], json!([]));
    let settings = shown["settings"].as_array().unwrap();
    let setting = |key: &str| {
        settings
            .iter()
            .find(|setting| setting["key"] == key)
            .unwrap_or_else(|| panic!("{key}"))
    };
    assert_eq!(
        setting("limits.hold"),
        &json!({"key": "limits.hold", "value": 30, "default": 120, "origin": {"file": main, "line": 1}})
    );
    assert_eq!(
        setting("expedite"),
        &json!({"key": "expedite", "value": true, "default": true, "origin": null})
    );
    assert_eq!(
        setting("metrics.textfile"),
        &json!({"key": "metrics.textfile", "value": null, "default": null, "origin": null})
    );
    assert_eq!(setting("filesystems.include_types")["value"], json!([]));
    let checked: Value =
        serde_json::from_slice(&place.config(&["--check", "--json"]).stdout).unwrap();
    assert_eq!(
        checked,
        json!({"valid": true, "files": [main, place.drop_in()], "ignored": [], "problems": []})
    );
}

#[test]
fn a_check_names_the_files_and_what_is_passed_over() {
    let place = Place::new("", "");
    fs::write(place.drop_in().with_extension("toml.dpkg-new"), "=").unwrap();
    let output = place.config(&["--check"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        place.text(&output.stdout),
        "c.toml.d/10-x.toml.dpkg-new: not read, because it is no *.toml\n\
         c.toml: valid\n\
         c.toml.d/10-x.toml: valid\n"
    );
    assert_eq!(place.text(&output.stderr), "");
}

#[test]
fn a_check_lists_every_problem_and_exits_with_2() {
    let place = Place::new(
        "strictness = \"lax\"\n[limits]\nhodl = 1\n",
        "limits.hold = 0\n",
    );
    let output = place.config(&["--check"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(place.text(&output.stdout), "");
    assert_eq!(
        place.text(&output.stderr),
        "hv-vssd: c.toml, line 1: strictness is \"lax\"; it must be \"normal\", \"strict\" or \"flush-only\"\n\
         hv-vssd: c.toml, line 3: unknown key limits.hodl; did you mean limits.hold?\n\
         hv-vssd: c.toml.d/10-x.toml, line 1: limits.hold is 0; it must be a whole number of seconds from 1 to 600\n"
    );
    let output = place.config(&["--check", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(checked["valid"], json!(false));
    assert_eq!(
        checked["problems"][1],
        json!({
            "file": place.main(),
            "line": 3,
            "message": "unknown key limits.hodl; did you mean limits.hold?",
        })
    );
    assert_eq!(checked["problems"].as_array().unwrap().len(), 3);
}

#[test]
fn a_check_and_a_show_exclude_each_other() {
    let output = Place::new("", "").config(&["--check", "--show"]);
    assert_eq!(output.status.code(), Some(2));
}
