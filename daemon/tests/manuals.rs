//! What `--help`, manual pages and completions say is made from the command line, and seen by whoever reviews a change of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod man;
mod renew;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap_complete::Shell;

const COMPLETIONS: [(Shell, &str); 3] = [
    (Shell::Bash, "hv-vssd"),
    (Shell::Zsh, "_hv-vssd"),
    (Shell::Fish, "hv-vssd.fish"),
];

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../packaging")
        .join(name)
}

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(packaging(directory)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn the_manual_pages_are_made_from_the_command_line() {
    let pages = man::pages();
    for (name, text) in &pages {
        renew::assert_is(&format!("packaging/man/{name}"), text);
    }
    let made: BTreeSet<String> = pages.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names("man"), made, "a page of a command that is gone?");
}

#[test]
fn every_option_is_in_its_manual_page() {
    let (_, commands) = man::commands();
    let pages = man::pages();
    for command in commands {
        let name = format!("hv-vssd-{}.8", command.get_name());
        let (_, page) = pages.iter().find(|(page, _)| *page == name).unwrap();
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            let written = option.replace('-', "\\-");
            assert!(
                page.contains(&format!("\\-\\-{written}")),
                "{name}: {option}"
            );
        }
        assert!(page.contains("EXIT STATUS"));
    }
}

fn completion(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut man::command_line(), "hv-vssd", &mut text);
    let text = String::from_utf8(text).unwrap();
    if shell == Shell::Bash {
        // clap_complete 4.6 calls the commands of a program with a hyphen by two names, so that no option of one is ever offered.
        return text.replace("hv__subcmd__vssd", "hv__vssd");
    }
    text
}

#[test]
fn the_completions_are_made_from_the_command_line() {
    for (shell, name) in COMPLETIONS {
        renew::assert_is(&format!("packaging/completions/{name}"), &completion(shell));
    }
    let made = COMPLETIONS.map(|(_, name)| name.to_owned()).into();
    assert_eq!(names("completions"), made);
}

/// What bash offers for a line.
fn offered(line: &[&str]) -> BTreeSet<String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), completion(Shell::Bash)).unwrap();
    let script = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={}
         call=$(complete -p hv-vssd); call=${{call#*-F }}; call=${{call%% *}}
         $call hv-vssd {} {}
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        file.path().display(),
        line.join(" "),
        line.len() - 1,
        line[line.len() - 1],
        line[line.len() - 2],
    );
    let output = Command::new("bash")
        .args(["--norc", "-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_commands_and_options() {
    assert_eq!(offered(&["hv-vssd", "pl"]), ["plan".to_owned()].into());
    assert_eq!(
        offered(&["hv-vssd", "config", "--ch"]),
        ["--check".to_owned()].into()
    );
    assert!(offered(&["hv-vssd", "plan", "--"]).contains("--json"));
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .args(arguments)
        .stdin(Stdio::null())
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}");
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_says_of_itself_what_was_reviewed() {
    renew::assert_is("daemon/tests/help/hv-vssd.txt", &help(&["--help"]));
    let (_, commands) = man::commands();
    for command in commands {
        let name = command.get_name();
        let file = format!("daemon/tests/help/hv-vssd-{name}.txt");
        renew::assert_is(&file, &help(&[name, "--help"]));
    }
}

#[test]
fn no_line_is_wider_than_a_terminal_and_every_command_has_a_summary() {
    let (top, commands) = man::commands();
    assert!(top.get_about().is_some());
    for command in commands {
        let name = command.get_name();
        let about = command.get_about().unwrap().to_string();
        // One line of the list of commands, which is indented by 10.
        assert!(about.chars().count() <= 90, "{name}: {about}");
        for text in [help(&[name, "--help"]), help(&[name, "-h"])] {
            assert!(
                text.lines().all(|line| line.chars().count() <= 100),
                "{text}"
            );
        }
    }
}

#[test]
fn what_commands_have_in_common_is_called_and_told_alike() {
    let (_, commands) = man::commands();
    for (option, short) in [("json", None), ("config", None), ("verbose", Some('v'))] {
        let having: Vec<_> = commands
            .iter()
            .flat_map(|command| command.get_arguments())
            .filter(|argument| argument.get_long() == Some(option))
            .collect();
        assert!(!having.is_empty(), "--{option}");
        assert!(
            having.iter().all(|argument| argument.get_short() == short),
            "--{option}"
        );
    }
    let reads_configuration = ["run", "plan", "config", "freeze"];
    let for_programs = ["plan", "config", "freeze", "status", "thaw"];
    for (option, names) in [
        ("config", &reads_configuration[..]),
        ("json", &for_programs),
    ] {
        for name in names {
            let command = commands
                .iter()
                .find(|command| command.get_name() == *name)
                .unwrap();
            let mut arguments = command.get_arguments();
            assert!(
                arguments.any(|argument| argument.get_long() == Some(option)),
                "{name} has no --{option}"
            );
        }
    }
}
