//! What the command refuses, and that nothing stays frozen then.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use hvutil_sys::freeze as ioctl;
use nix::sys::signal::Signal;

use super::scratch::{Disk, RUN, in_namespace, own_run};
use super::{LONG, freeze, held, send, text, wait};

#[test]
fn what_someone_else_froze_fails_it_and_the_rest_is_thawed() {
    in_namespace(|place| {
        own_run();
        let [one, two] = ["one", "two"].map(|name| Disk::new(place, name, "ext4"));
        ioctl::freeze(File::open(&two.mount_point).unwrap()).unwrap();
        let paths = [&*one.mount_point, &*two.mount_point];
        let output = freeze(&[LONG, "--report"], &paths).output().unwrap();
        let (status, out, err) = text(&output);
        assert_eq!(status, Some(1), "{out}{err}");
        assert!(
            out.starts_with("the freeze failed: 1 file system frozen"),
            "{out}"
        );
        assert!(out.contains(" foreign\n"), "{out}");
        let last = err.lines().last().unwrap();
        assert!(
            last.contains("two-mounted") && last.contains("someone else"),
            "{err}"
        );
        assert!(!one.is_frozen());
        assert!(two.is_frozen(), "it is not ours to thaw");
    });
}

#[test]
fn two_by_hand_exclude_each_other() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let first = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
        let output = freeze(&["--for=1s"], &[&disk.mount_point])
            .output()
            .unwrap();
        let (status, out, err) = text(&output);
        assert_eq!((status, out.as_str()), (Some(3), ""), "{err}");
        assert!(err.contains("another 'hv-vssd freeze' is at work"), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(disk.is_frozen());
        send(&first, Signal::SIGINT);
        wait(first);
    });
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_frozen() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let gone = disk.mount_point.join("gone");
        let run: PathBuf = RUN.into();
        for (arguments, path, status, told) in [
            (&[][..], &disk.mount_point, 2, "--for <TIME>"),
            (&["--for=5"], &disk.mount_point, 2, "time unit needed"),
            (&["--for=0s"], &disk.mount_point, 2, "at least 1ms"),
            (&["--for=1h"], &disk.mount_point, 2, "limits.hold"),
            (
                &["--for=1s", "--json", "--report"],
                &disk.mount_point,
                2,
                "cannot be used with",
            ),
            (
                &["--for=1s"],
                &run,
                1,
                "is on a file system that is not frozen (tmpfs on 0:",
            ),
        ] {
            let output = freeze(arguments, &[path]).output().unwrap();
            let (code, out, err) = text(&output);
            assert_eq!((code, out.as_str()), (Some(status), ""), "{err}");
            assert!(err.contains(told), "{told} is not in: {err}");
        }
        // One good path does not help a bad one.
        let mut command = freeze(&["--for=1s"], &[&disk.mount_point]);
        let (code, _, err) = text(&command.arg(&gone).output().unwrap());
        assert_eq!(code, Some(1));
        assert!(err.contains("gone cannot be used: No such file"), "{err}");
        assert!(!disk.is_frozen());
    });
}

#[test]
fn without_root_it_says_so() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        // Where anyone may run it.
        let program = Path::new(RUN).join("hv-vssd");
        fs::copy(env!("CARGO_BIN_EXE_hv-vssd"), &program).unwrap();
        let command = freeze(&["--for=1s"], &[&disk.mount_point]);
        let mut nobody = Command::new(&program);
        nobody.args(command.get_args()).uid(65534).gid(65534);
        let (code, out, err) = text(&nobody.output().unwrap());
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains("run this as root"), "{err}");
    });
}
