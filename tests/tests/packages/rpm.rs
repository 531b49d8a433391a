//! What is in the rpm, installed into a root of its own.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use tests::command::{output, run, said};
use tests::paths;

use crate::made;
use crate::root::Root;

fn query(format: &str) -> String {
    run(Command::new("rpm")
        .args(["-qp", "--nosignature", "--qf", format])
        .arg(made::rpm()))
    .unwrap()
}

fn installed() -> Root {
    let root = Root::running(false);
    root.rpm(&["--initdb"]);
    root.rpm(&[
        "-i",
        "--nodeps",
        "--nosignature",
        made::rpm().to_str().unwrap(),
    ]);
    root
}

#[test]
fn its_tags_say_what_it_is_and_needs() {
    assert_eq!(
        query("%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{LICENSE}"),
        format!("hv-vssd {} 1 x86_64 MIT OR Apache-2.0", made::version())
    );
    let root = installed();
    let glibc = made::newest_glibc(&root.path("usr/sbin/hv-vssd"));
    let required = query("[%{REQUIRENAME}\n]");
    let required: BTreeSet<&str> = required.lines().collect();
    let highest = |name: &&&str| {
        let version = name
            .strip_prefix("libc.so.6(GLIBC_")
            .and_then(|rest| rest.split(')').next());
        version.is_some_and(|version| version == glibc)
    };
    assert_eq!(required.iter().filter(highest).count(), 1, "{required:?}");
    for name in [
        "/bin/sh",
        "libc.so.6()(64bit)",
        "libgcc_s.so.1()(64bit)",
        "rtld(GNU_HASH)",
    ] {
        assert!(required.contains(name), "{name}: {required:?}");
    }
    assert_eq!(
        query("[%{CONFLICTNAME}\n][%{OBSOLETENAME}\n]"),
        "",
        "it is installed beside hyperv-daemons"
    );
}

#[test]
fn all_that_a_source_installation_has_is_in_it() {
    let policy =
        ["te", "fc", "if"].map(|kind| format!("usr/share/selinux/packages/hv-vssd/hv-vssd.{kind}"));
    let expected: BTreeSet<String> = made::installed_from_source()
        .into_iter()
        .map(|path| match path.split_once("/doc/hv-vssd/LICENSE-") {
            _ if path.contains("/man/man") => format!("{path}.gz"),
            Some((share, name)) => format!("{share}/licenses/hv-vssd/LICENSE-{name}"),
            None => path,
        })
        .chain(policy)
        .chain(["usr/share/licenses/hv-vssd/third-party-notices".to_owned()])
        .collect();
    let files = query("[%{FILENAMES}\n]");
    let files: BTreeSet<String> = files
        .lines()
        .map(|path| path.trim_start_matches('/').to_owned())
        .collect();
    assert_eq!(files, expected);
}

#[test]
fn owners_modes_and_marks_are_right() {
    for line in query(
        "[%{FILENAMES} %{FILEMODES:perms} %{FILEUSERNAME}/%{FILEGROUPNAME} %{FILEFLAGS:fflags}\n]",
    )
    .lines()
    {
        let words: Vec<&str> = line.split(' ').collect();
        let (path, mark) = (words[0], words[3]);
        let program = path.starts_with("/usr/sbin/") || path.contains("/hooks.available/");
        assert_eq!(
            words[1],
            if program { "-rwxr-xr-x" } else { "-rw-r--r--" },
            "{line}"
        );
        assert_eq!(words[2], "root/root", "{line}");
        let expected = match path {
            "/etc/hv-vssd/config.toml" => "cn",
            document
                if document.starts_with("/usr/share/doc/")
                    || document.starts_with("/usr/share/man/") =>
            {
                "d"
            }
            _ => "",
        };
        assert_eq!(mark, expected, "{line}");
    }
}

#[test]
fn installed_it_is_as_the_package_says_and_its_unit_is_valid() {
    let root = installed();
    assert_eq!(root.rpm(&["-V", "--nodeps", "hv-vssd"]), "");
    assert!(
        root.path("etc/hv-vssd/hooks.d").is_dir(),
        "hooks have a directory"
    );
    let unit = root.path("usr/lib/systemd/system/hv-vssd.service");
    // What every unit depends on.
    for target in ["sysinit.target", "basic.target", "shutdown.target"] {
        root.write(&format!("usr/lib/systemd/system/{target}"), "[Unit]\n");
    }
    let mut command = Command::new("systemd-analyze");
    command
        .args(["verify", "--man=no"])
        .arg(format!("--root={}", root.path("").display()))
        .arg("hv-vssd.service");
    let verified = output(&mut command).unwrap();
    assert!(verified.status.success(), "{}", said(&verified));
    assert!(!said(&verified).contains("hv-vssd"), "{}", said(&verified));
    let shipped = fs::read_to_string(paths::workspace().join("systemd/hv-vssd.service")).unwrap();
    assert_eq!(fs::read_to_string(unit).unwrap(), shipped);
}

#[test]
fn erased_it_leaves_nothing() {
    let root = Root::running(false);
    root.rpm(&["--initdb"]);
    let list = |root: &Root| {
        run(Command::new("find").arg(root.path("")).args([
            "-path",
            "*/var/lib/rpm*",
            "-prune",
            "-o",
            "-print",
        ]))
        .unwrap()
    };
    root.rpm(&[
        "-i",
        "--nodeps",
        "--nosignature",
        made::rpm().to_str().unwrap(),
    ]);
    root.stand_in();
    root.rpm(&["-e", "hv-vssd"]);
    let left = list(&root);
    let ours: Vec<&str> = left
        .lines()
        .filter(|path| path.contains("hv-vssd") || path.contains("hypervvssd"))
        .collect();
    assert!(ours.is_empty(), "{ours:?}");
}

#[test]
fn a_changed_configuration_survives() {
    let root = installed();
    root.stand_in();
    root.write("etc/hv-vssd/config.toml", "strictness = \"strict\"\n");
    root.rpm(&["-e", "hv-vssd"]);
    let kept = fs::read_to_string(root.path("etc/hv-vssd/config.toml.rpmsave")).unwrap();
    assert_eq!(kept, "strictness = \"strict\"\n");
}

#[test]
fn rpmlint_has_nothing_to_say() {
    let mut command = Command::new("rpmlint");
    command
        .arg("--config")
        .arg(paths::workspace().join("packaging/rpm/rpmlint.toml"))
        .arg(made::rpm());
    let output = output(&mut command).unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("1 packages and 0 specfiles checked; 0 errors, 0 warnings"),
        "{text}"
    );
}
