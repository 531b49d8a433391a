//! However the command ends, what it holds is thawed.

use std::fs::File;
use std::io::{Read, Write};
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use super::scratch::{Disk, in_namespace, own_run, until};
use super::{LONG, freeze, held, send, text, wait};

#[test]
fn whatever_ends_it_thaws_first_and_is_told() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        for signal in [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGTSTP,
        ] {
            let child = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
            send(&child, signal);
            let (status, out, err) = text(&wait(child));
            assert_eq!(status, Some(4), "{signal}: {out}{err}");
            assert!(!disk.is_frozen(), "{signal}");
            assert!(out.lines().count() >= 3, "{out}");
            let last = err.lines().last().unwrap();
            let told = format!("hv-vssd: interrupted by {signal}: ");
            assert!(last.starts_with(&told), "{err}");
        }
    });
}

#[test]
fn killed_in_the_hold_it_is_thawed_for_by_the_guardian() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "xfs");
        let child = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
        send(&child, Signal::SIGKILL);
        until("the thaw", || !disk.is_frozen());
        let (status, out, _) = text(&wait(child));
        assert_eq!((status, out.as_str()), (None, ""));
        // And the next one works.
        let output = freeze(&["--for=10ms"], &[&disk.mount_point])
            .output()
            .unwrap();
        assert_eq!(text(&output).0, Some(0), "{:?}", text(&output));
    });
}

#[test]
fn a_lost_terminal_and_its_interrupt_key_thaw() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        for key in [Some(b"\x03"), None] {
            let terminal = nix::pty::openpty(None, None).unwrap();
            // Else the command would keep its own terminal alive.
            fcntl(&terminal.master, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
            // Its own session, of which this is the terminal.
            let command = freeze(&[LONG, "--report"], &[&disk.mount_point]);
            let mut session = Command::new("setsid");
            session
                .arg("--ctty")
                .arg(command.get_program())
                .args(command.get_args());
            session.stdin(terminal.slave.try_clone().unwrap());
            session.stdout(terminal.slave.try_clone().unwrap());
            session.stderr(terminal.slave);
            session
                .env("TERM", "xterm")
                .env("LC_ALL", "C")
                .env_remove("NO_COLOR");
            let child = held(session, &disk);
            let mut master = File::from(terminal.master);
            match key {
                Some(key) => {
                    // The terminal sends SIGINT to the guardian too.
                    master.write_all(key).unwrap();
                    let mut told = String::new();
                    let mut some = [0; 4096];
                    // At its end the terminal is an error.
                    while let Ok(length @ 1..) = master.read(&mut some) {
                        told.push_str(&String::from_utf8_lossy(&some[..length]));
                    }
                    assert!(told.contains("interrupted by SIGINT"), "{told}");
                    assert!(told.contains("\x1b[36m#"), "in colour, in ASCII: {told}");
                    assert_eq!(wait(child).status.code(), Some(4));
                }
                None => {
                    drop(master);
                    assert_eq!(wait(child).status.code(), Some(4));
                }
            }
            until("the thaw", || !disk.is_frozen());
        }
    });
}
