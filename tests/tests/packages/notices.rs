//! What the packaged program says of itself: the crates it is made of. Their licences go with it.

use std::collections::BTreeSet;
use std::process::Command;

use tests::command::run;
use tests::paths;

use crate::deb;

/// Crates of this project: their licence is the package's own.
const OURS: [&str; 2] = ["hv-vssd", "hvutil-sys"];

/// "name version", as the program itself says it, in the form of CycloneDX.
fn crates_of_the_program() -> BTreeSet<String> {
    let tree = deb::unpacked();
    let said = run(Command::new("auditable2cdx").arg(tree.path().join("usr/sbin/hv-vssd")))
        .expect("auditable2cdx reads it: 'packaging/tools install' installs that");
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let component = |component: &serde_json::Value| {
        let value = |name: &str| component[name].as_str().unwrap().to_owned();
        format!("{} {}", value("name"), value("version"))
    };
    let components = said["components"].as_array().unwrap();
    components.iter().map(component).collect()
}

/// "name version" of all that cargo builds in the workspace. The program's own account also names crates of features that are off.
fn crates_of_the_workspace() -> BTreeSet<String> {
    let listed = run(Command::new("cargo").current_dir(paths::workspace()).args([
        "tree",
        "--locked",
        "--workspace",
        "-e",
        "all",
        "--prefix",
        "none",
    ]))
    .unwrap();
    let name = |line: &str| {
        let mut words = line.split(' ');
        let version = |word: &str| word.trim_start_matches('v').to_owned();
        Some(format!("{} {}", words.next()?, version(words.next()?)))
    };
    listed.lines().filter_map(name).collect()
}

#[test]
fn every_crate_in_the_program_has_its_licence_in_the_package() {
    let tree = deb::unpacked();
    let notices = run(Command::new("zcat").arg(
        tree.path()
            .join("usr/share/doc/hv-vssd/third-party-notices.gz"),
    ))
    .unwrap();
    let stated: BTreeSet<&str> = notices
        .lines()
        .filter_map(|line| Some(line.split_once(": ")?.0))
        .collect();
    let crates = crates_of_the_program();
    assert!(
        crates.iter().any(|name| name.starts_with("tokio ")),
        "not of this program: {crates:?}"
    );
    let built = crates_of_the_workspace();
    for name in crates.intersection(&built) {
        let ours = OURS.iter().any(|ours| name.split(' ').next() == Some(ours));
        assert!(
            ours || stated.contains(name.as_str()),
            "{name} has no licence"
        );
    }
    assert!(
        notices.contains("Permission is hereby granted, free of charge"),
        "the texts are missing"
    );
}
