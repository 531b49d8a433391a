use std::fs;

use super::super::keys::SECTIONS;
use super::super::{Kind, Limits, OnFailure, Strictness, Value};
use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/hv-vssd/config.toml")).map_err(|error| error.to_string())
}

fn problems(text: &str) -> Vec<String> {
    let error = Config::parse(text, Path::new("c")).unwrap_err();
    error.problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse("").unwrap(), Config::default());
    assert_eq!(
        parse("[limits]\nhold = 30").unwrap().limits,
        Limits {
            hold: 30,
            ..Limits::default()
        }
    );
}

/// A value that differs from the default.
fn another(kind: &Kind, default: Option<&Value>) -> Value {
    let list = |element: &str| Value::List(vec![element.to_owned()]);
    match kind {
        Kind::Flag => Value::Flag(default != Some(&Value::Flag(true))),
        Kind::Seconds(bounds) => Value::Number(bounds.start() + 7),
        Kind::Choice(words) => Value::Text((*words.last().unwrap()).to_owned()),
        Kind::Path(suffix) => Value::Text(format!("/run/a \"b\"{suffix}")),
        Kind::MountPoints => list("/srv/a b\\"),
        Kind::Types => list("ext4"),
        Kind::Devices => list("8:17"),
        Kind::Processes => list("/usr/bin/a b"),
    }
}

#[test]
fn every_key_takes_its_values_and_keeps_them_apart_from_all_others() {
    let default = Config::default();
    for key in KEYS {
        let value = another(&key.kind, key.get(&default, "10-x").as_ref());
        let text = format!("{} = {value}\n", key.path("10-x"));
        let loaded = Loaded::parse(&text, Path::new("c")).unwrap();
        assert_eq!(key.get(&loaded.config, "10-x"), Some(value), "{text}");
        for other in KEYS.iter().filter(|other| !std::ptr::eq(*other, key)) {
            let [now, before] = [&loaded.config, &default].map(|config| other.get(config, "10-x"));
            assert_eq!(now, before, "{text}: {other:?}");
        }
        let set: Vec<&str> = loaded.origins.keys().map(String::as_str).collect();
        assert_eq!(set, [key.path("10-x")]);
    }
}

#[test]
fn every_key_refuses_what_is_none_of_its_values() {
    for key in KEYS {
        for wrong in ["1.5", "-1", "\"\"", "\"../x\"", "{}", "[1]", "1979-05-27"] {
            let text = format!("\n{} = {wrong}\n", key.path("10-x"));
            let told = problems(&text);
            assert_eq!(told.len(), 1, "{text}: {told:?}");
            let begin = format!("c, line 2: {}", key.path("10-x"));
            assert!(
                told[0].starts_with(&begin) && told[0].ends_with(&format!("must be {}", key.kind)),
                "{told:?}"
            );
        }
    }
}

#[test]
fn every_key_stands_in_a_section_that_is_known() {
    for key in KEYS {
        let sections = SECTIONS
            .iter()
            .filter(|section| section.name == key.section);
        assert_eq!(sections.count(), 1, "{key:?}");
    }
}

#[test]
fn what_is_shown_is_the_same_configuration() {
    let mut text = String::new();
    for key in KEYS {
        let value = another(&key.kind, key.get(&Config::default(), "").as_ref());
        // The limits together have a bound of their own.
        if !matches!(key.kind, Kind::Seconds(_)) {
            text += &format!("{} = {value}\n", key.path("10-x.sh"));
        }
    }
    let loaded = Loaded::parse(&text, Path::new("/etc/a b.toml")).unwrap();
    let shown = loaded.to_toml();
    assert_eq!(parse(&shown).unwrap(), loaded.config, "{shown}");
    assert!(
        shown.contains("\nstrictness = ")
            || shown.starts_with("strictness = \"flush-only\"  # /etc/a b.toml:1\n"),
        "{shown}"
    );
    assert!(shown.contains("\n[hooks.by_name.\"10-x.sh\"]\n"), "{shown}");
    assert!(shown.contains("\nhold = 120  # default\n"), "{shown}");
    let default = Loaded::default().to_toml();
    assert_eq!(parse(&default).unwrap(), Config::default());
    assert!(default.contains("\n#textfile =  # default\n"), "{default}");
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_what_was_meant() {
    assert_eq!(
        problems("[limits]\nfreeze = 10\nhodl = 5\n\n[filesytems]\nexclude_types = [\"a\"]\n"),
        [
            "c, line 3: unknown key limits.hodl; did you mean limits.hold?",
            "c, line 5: unknown key filesytems; did you mean filesystems?",
        ]
    );
    assert_eq!(
        problems("[hooks.by_name.\"10-a\"]\nlimits = 3\n"),
        ["c, line 2: unknown key hooks.by_name.\"10-a\".limits; did you mean limit for this hook?"]
    );
}

#[test]
fn every_problem_is_told_and_the_first_makes_the_line() {
    let text = "strictness = 3\n[limits]\nhold = \"long\"\nflush = 601\n[filesystems]\n\
         exclude_mount_points = [\n  \"srv\",\n  \"/ok\",\n  7,\n]\n";
    assert_eq!(
        problems(text),
        [
            "c, line 1: strictness is 3; it must be \"normal\", \"strict\" or \"flush-only\"",
            "c, line 3: limits.hold is \"long\"; it must be a whole number of seconds from 1 to 600",
            "c, line 4: limits.flush is 601; it must be a whole number of seconds from 1 to 600",
            "c, line 7: filesystems.exclude_mount_points has the element \"srv\"; it must be a list of absolute paths without \"..\"",
            "c, line 9: filesystems.exclude_mount_points has the element 7; it must be a list of absolute paths without \"..\"",
        ]
    );
    let line = parse(text).unwrap_err();
    assert!(
        line.starts_with("/etc/hv-vssd/config.toml, line 1: ")
            && line.ends_with(" (and 4 more: see hv-vssd config --check)"),
        "{line}"
    );
}

#[test]
fn a_malformed_file_is_refused_with_every_line_that_is() {
    let told = problems("[limits]\n\nhold = = 5\nflush =\nfreeze = 3\n");
    assert!(
        told.iter().any(|line| line.starts_with("c, line 3: ")),
        "{told:?}"
    );
    assert!(
        told.iter().any(|line| line.starts_with("c, line 4: ")),
        "{told:?}"
    );
    let told = problems("[limits]\nhold = 3\nhold = 4\n");
    assert!(told[0].starts_with("c, line 3: duplicate key"), "{told:?}");
}

#[test]
fn a_table_is_a_table_and_a_key_is_none() {
    assert_eq!(
        problems("limits = 3\n[hooks]\nby_name = []\n"),
        [
            "c, line 1: limits must be a table: [limits]",
            "c, line 3: hooks.by_name must be a table: [hooks.by_name]",
        ]
    );
    assert!(problems("[expedite]\n")[0].starts_with("c, line 1: expedite is a table"));
}

#[test]
fn a_hook_may_differ_from_the_others() {
    let hooks = parse(
        "[hooks]\non_failure = \"continue\"\nlimit = 40\n\
         [hooks.by_name.\"10-postgresql\"]\non_failure = \"abort\"\nlimit = 90\n",
    )
    .unwrap()
    .hooks;
    assert_eq!(hooks.on_failure_of("10-postgresql"), OnFailure::Abort);
    assert_eq!(hooks.limit_of("10-postgresql"), 90);
    assert_eq!(hooks.on_failure_of("20-redis"), OnFailure::Continue);
    assert_eq!(hooks.limit_of("20-redis"), 40);
    let told = problems("[hooks.by_name.\"a/b\"]\nlimit = 4\n");
    assert!(told[0].contains("is not the name of a file"), "{told:?}");
}

#[test]
fn the_limits_together_stay_below_the_drivers() {
    let told = problems("[limits]\nflush = 600\n[hooks]\ntotal = 151\n");
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with(
            "c, line 4: limits.flush = 600 (c, line 2), limits.freeze = 60 (default), hooks.total = 151 (c, line 4) add up to 871 s, with 60 s for all else"
        ),
        "{told:?}"
    );
    assert!(parse("[limits]\nflush = 600\n[hooks]\ntotal = 150\n").is_ok());
    let unused = "[limits]\nflush = 600\nfreeze = 180\n[hooks]\nenabled = false\ntotal = 600\n";
    assert_eq!(parse(unused).unwrap().freeze_request(), 840);
}

/// A configuration with drop-ins: name and text of each.
fn directory(main: Option<&str>, drop_ins: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    if let Some(text) = main {
        fs::write(&file, text).unwrap();
    }
    if !drop_ins.is_empty() {
        fs::create_dir(directory.path().join("config.toml.d")).unwrap();
    }
    for (name, text) in drop_ins {
        fs::write(directory.path().join("config.toml.d").join(name), text).unwrap();
    }
    let sources = Sources {
        file,
        required: false,
    };
    (directory, sources)
}

#[test]
fn a_later_file_wins_key_by_key_and_the_origin_is_kept() {
    let (place, sources) = directory(
        Some("[limits]\nhold = 30\nflush = 31\n[filesystems]\nexclude_types = [\"a\", \"b\"]\n"),
        &[
            ("20-late.toml", "\n\nlimits.hold = 50\n"),
            (
                "10-early.toml",
                "strictness = \"strict\"\nlimits.hold = 40\nfilesystems.exclude_types = [\"c\"]\n\
                 hooks.by_name.x.limit = 3\n",
            ),
            (
                "30-more.toml",
                "hooks.by_name.x.on_failure = \"continue\"\n",
            ),
        ],
    );
    let loaded = Loaded::read(&sources).unwrap();
    let config = &loaded.config;
    assert_eq!(config.strictness, Strictness::Strict);
    assert_eq!((config.limits.hold, config.limits.flush), (50, 31));
    assert_eq!(config.filesystems.exclude_types, ["c"]);
    assert_eq!(config.hooks.limit_of("x"), 3);
    assert_eq!(config.hooks.on_failure_of("x"), OnFailure::Continue);
    let origin = |key: &str| {
        let origin = &loaded.origins[key];
        let file = origin.file.strip_prefix(place.path()).unwrap();
        format!("{}:{}", file.display(), origin.line)
    };
    assert_eq!(origin("limits.hold"), "config.toml.d/20-late.toml:3");
    assert_eq!(origin("limits.flush"), "config.toml:3");
    assert_eq!(origin("strictness"), "config.toml.d/10-early.toml:1");
    assert_eq!(loaded.files.len(), 4);
}

#[test]
fn the_problems_of_all_files_are_told() {
    let (_place, sources) = directory(
        Some("a = 1\n"),
        &[("1.toml", "b = 2\n"), ("2.toml", "c = = 3\n")],
    );
    let error = Loaded::read(&sources).unwrap_err();
    assert!(error.problems.len() >= 3, "{error:?}");
    let files: Vec<_> = error
        .problems
        .iter()
        .map(|problem| problem.file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(files[..3], ["config.toml", "1.toml", "2.toml"]);
}
