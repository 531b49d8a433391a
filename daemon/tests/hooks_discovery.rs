//! Which files are hooks, which are switched off, which must not be run, and what is said about it.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::slice;

use hv_vssd::hooks::discover::{Found, Places, accept, discover};
use tempfile::TempDir;

struct Machine {
    directory: TempDir,
    places: Places,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let places = Places {
            directories: vec![directory.path().join("usr"), directory.path().join("etc")],
            owner: nix::unistd::geteuid().as_raw(),
            top: directory.path().to_owned(),
        };
        for place in &places.directories {
            fs::create_dir(place).unwrap();
            mode(place, 0o755);
        }
        Self { directory, places }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn put(&self, path: &str) -> PathBuf {
        let path = self.path(path);
        fs::write(&path, "#!/bin/sh\n").unwrap();
        mode(&path, 0o755);
        path
    }

    fn found(&self) -> Found {
        discover(&self.places)
    }

    fn hooks(&self) -> Vec<PathBuf> {
        self.found()
            .hooks
            .into_iter()
            .map(|hook| hook.path)
            .collect()
    }

    /// The one reason for which a hook is refused.
    fn refusal(&self) -> String {
        let found = self.found();
        assert_eq!(found.hooks, [], "nothing else is there");
        assert_eq!(found.refused.len(), 1, "{:?}", found.refused);
        found.refused[0].why.to_string()
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn hooks_come_in_name_order_whatever_their_directory() {
    let machine = Machine::new();
    let names = ["etc/20-b", "usr/10-a", "usr/30-c.sh", "etc/5"];
    let [second, first, third, last] = names.map(|name| machine.put(name));
    assert_eq!(machine.hooks(), [first, second, third, last]);
}

#[test]
fn absent_directories_have_no_hooks() {
    let mut machine = Machine::new();
    machine.places.directories = vec!["/nonexistent/hooks.d".into()];
    let found = machine.found();
    assert!(found.hooks.is_empty() && found.refused.is_empty());
}

#[test]
fn the_administrators_file_stands_in_for_a_packaged_one_and_a_link_to_dev_null_masks_it() {
    let machine = Machine::new();
    for name in ["10-a", "20-b"] {
        machine.put(&format!("usr/{name}"));
    }
    let own = machine.put("etc/10-a");
    symlink("/dev/null", machine.path("etc/20-b")).unwrap();
    assert_eq!(machine.hooks(), [own]);
    let skipped = machine.found().skipped;
    assert_eq!(skipped.len(), 1);
    assert_eq!(skipped[0].why.to_string(), "masked");
    // An override that must not be run does not bring the packaged one back.
    mode(&machine.path("etc/10-a"), 0o777);
    assert!(machine.refusal().contains("chmod go-w"));
}

#[test]
fn a_hook_may_be_a_link_to_a_file_that_may_be_run() {
    let machine = Machine::new();
    fs::create_dir(machine.path("available")).unwrap();
    mode(&machine.path("available"), 0o755);
    let file = machine.put("available/database");
    let link = machine.path("etc/10-database");
    symlink(&file, &link).unwrap();
    assert_eq!(machine.hooks(), [link]);
    mode(&machine.path("available"), 0o775);
    assert!(
        machine.refusal().contains("available' can") || machine.refusal().contains("available can")
    );
    fs::remove_file(&file).unwrap();
    assert!(machine.refusal().contains("leads nowhere"));
}

#[test]
fn whoever_decides_about_a_directory_far_above_decides_about_the_hook() {
    let machine = Machine::new();
    fs::create_dir_all(machine.path("home/app/tools/hooks")).unwrap();
    for place in ["home", "home/app", "home/app/tools", "home/app/tools/hooks"] {
        mode(&machine.path(place), 0o755);
    }
    let file = machine.put("home/app/tools/hooks/database");
    let link = machine.path("etc/10-database");
    // By a link to a link, the last of which is relative.
    symlink(
        "../home/app/tools/hooks/database",
        machine.path("usr/.between"),
    )
    .unwrap();
    symlink(machine.path("usr/.between"), &link).unwrap();
    assert_eq!(machine.hooks(), slice::from_ref(&link));
    let app = machine.path("home/app");
    // Sticky helps no more than with sshd: its own owner may still rename it.
    for bits in [0o775, 0o757, 0o1777] {
        mode(&app, bits);
        let expected = format!(
            "{}, which leads to it, can be written to by others than root: copy the hook to /etc/hv-vssd/hooks.d instead of a link to it",
            app.display()
        );
        assert_eq!(machine.refusal(), expected, "{bits:o}");
    }
    mode(&app, 0o755);
    assert_eq!(machine.hooks(), slice::from_ref(&link));
    // A directory that only a link in the middle leads over.
    fs::create_dir(machine.path("via")).unwrap();
    symlink("../home/app/tools", machine.path("via/tools")).unwrap();
    fs::remove_file(&link).unwrap();
    symlink(machine.path("via/tools/hooks/database"), &link).unwrap();
    mode(&machine.path("via"), 0o777);
    assert!(machine.refusal().contains("/via, which leads to it,"));
    mode(&machine.path("via"), 0o755);
    assert_eq!(machine.hooks(), slice::from_ref(&link));
    // And what lies above the directory of the hooks itself.
    let mut machine = machine;
    machine.places.top = "/".into();
    let above = machine
        .directory
        .path()
        .parent()
        .unwrap()
        .display()
        .to_string();
    if fs::metadata(&above).unwrap().permissions().mode() & 0o022 != 0 {
        let why = machine.refusal();
        assert!(why.contains(&format!("chmod go-w {above}'")), "{why}");
    }
    let found = machine.places.clone();
    assert!(accept(&file, &found).is_err(), "accepted for its thaw");
}

#[test]
fn what_was_looked_at_stays_what_it_is_whatever_takes_its_place() {
    let machine = Machine::new();
    let path = machine.put("etc/10-a");
    let accepted = accept(&path, &machine.places).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    fs::rename(&path, machine.path("etc/old")).unwrap();
    machine.put("etc/10-a");
    assert_eq!(accepted.metadata().unwrap().ino(), inode);
}

#[test]
fn notes_and_what_editors_and_packages_leave_behind_are_no_hooks() {
    let machine = Machine::new();
    for name in [
        "README",
        "README.md",
        ".hidden",
        "10-a~",
        "10-a.bak",
        "10-a.dpkg-old",
        "10-a.rpmsave",
    ] {
        machine.put(&format!("etc/{name}"));
    }
    let found = machine.found();
    assert!(found.hooks.is_empty() && found.refused.is_empty() && found.skipped.is_empty());
}

#[test]
fn a_file_that_is_not_executable_is_switched_off() {
    let machine = Machine::new();
    mode(&machine.put("etc/10-a"), 0o644);
    let found = machine.found();
    assert!(found.hooks.is_empty() && found.refused.is_empty());
    assert!(found.skipped[0].why.to_string().contains("chmod 755"));
}

#[test]
fn a_file_or_directory_that_others_can_write_to_is_refused_with_the_remedy() {
    for bits in [0o775, 0o757] {
        let machine = Machine::new();
        let file = machine.put("etc/10-a");
        mode(&file, bits);
        assert_eq!(
            machine.refusal(),
            format!(
                "{0} can be written to by others than root: 'chmod go-w {0}'",
                file.display()
            )
        );
        mode(&file, 0o755);
        mode(&machine.path("etc"), bits);
        assert!(machine.refusal().contains("etc'"), "names the directory");
    }
}

#[test]
fn another_owner_of_file_or_directory_is_refused_with_the_remedy() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: changing owners needs root");
        return;
    }
    let machine = Machine::new();
    let file = machine.put("etc/10-a");
    chown(&file, Some(4711), None).unwrap();
    let expected = format!("{0} belongs to user 4711: 'chown root {0}'", file.display());
    assert_eq!(machine.refusal(), expected);
    chown(&file, Some(0), None).unwrap();
    chown(machine.path("etc"), Some(4711), None).unwrap();
    assert!(machine.refusal().contains("belongs to user 4711"));
    chown(machine.path("etc"), Some(0), None).unwrap();
    fs::create_dir_all(machine.path("home/hooks")).unwrap();
    let file = machine.put("home/hooks/database");
    for place in ["home", "home/hooks"] {
        mode(&machine.path(place), 0o755);
    }
    fs::remove_file(machine.path("etc/10-a")).unwrap();
    symlink(file, machine.path("etc/10-a")).unwrap();
    assert_eq!(machine.hooks().len(), 1);
    chown(machine.path("home"), Some(4711), None).unwrap();
    let expected = format!(
        "{}, which leads to it, belongs to user 4711: copy the hook to /etc/hv-vssd/hooks.d instead of a link to it",
        machine.path("home").display()
    );
    assert_eq!(machine.refusal(), expected);
}

#[test]
fn what_is_no_regular_file_or_has_an_odd_name_is_refused() {
    let machine = Machine::new();
    fs::create_dir(machine.path("etc/10-a")).unwrap();
    assert!(machine.refusal().contains("no regular file"));
    fs::remove_dir(machine.path("etc/10-a")).unwrap();
    machine.put("etc/10 a;b");
    assert!(machine.refusal().contains("rename it"));
}
