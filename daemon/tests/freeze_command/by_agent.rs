//! The command where an agent runs, which freezes for it.

use std::fs;
use std::path::Path;

use hv_vssd::agent::Outlets;
use hv_vssd::agent::single::Single;
use hv_vssd::control::Client;
use hv_vssd::quiesce::Engine;
use hv_vssd::telemetry::Gate;
use hvutil_sys::vss::{Operation, Status};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::double;
use super::driver::Driver;
use super::scratch::{Disk, PATIENCE, RUN, ScratchKernel, in_namespace, own_run, until};
use super::{LONG, freeze, held, send, text, wait};

/// An agent on these disks, as the service runs it, with its lock and its socket.
fn agent(disks: &[&Disk]) -> (Single, Driver) {
    let run = Path::new(RUN);
    let lock = Single::acquire(&run.join("lock")).unwrap();
    let kernel = ScratchKernel::new(disks);
    let make = || {
        let limits = double::limits(PATIENCE);
        Engine::new(kernel, limits, Gate::new(std::io::stderr()))
    };
    let outlets = Outlets {
        control: Some(run.join("control")),
        ..Outlets::default()
    };
    let driver = Driver::start_engine_of(make, outlets);
    until("the socket", || {
        Client::connect(&run.join("control")).is_ok()
    });
    (lock, driver)
}

#[test]
fn a_running_agent_does_it_and_the_command_tells() {
    in_namespace(|place| {
        own_run();
        let [one, two] = ["one", "two"].map(|name| Disk::new(place, name, "ext4"));
        let _agent = agent(&[&one, &two]);
        let file = one.mount_point.join("file");
        fs::write(&file, "data").unwrap();
        // Symbolic links are for the command to follow.
        let link = place.join("link-mounted");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let child = held(freeze(&["--for=300ms", "--json"], &[&link]), &one);
        assert!(!two.is_frozen(), "it was not named");
        let (status, out, err) = text(&wait(child));
        assert_eq!(status, Some(0), "{out}{err}");
        assert!(!one.is_frozen());
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["asked_by"], "manual");
        assert_eq!(report["file_systems"].as_array().unwrap().len(), 1, "{out}");

        // An interrupt: thawed at once, and reported all the same.
        let child = held(freeze(&[LONG], &[&one.mount_point]), &one);
        send(&child, Signal::SIGINT);
        let (status, out, err) = text(&wait(child));
        assert_eq!(status, Some(4), "{out}{err}");
        assert!(!one.is_frozen());
        assert!(out.lines().count() >= 3, "{out}");

        // Killed: its connection has gone.
        let child = held(freeze(&[LONG], &[&one.mount_point]), &one);
        send(&child, Signal::SIGKILL);
        until("the thaw", || !one.is_frozen());
        wait(child);
    });
}

#[test]
fn while_the_host_is_at_work_it_is_refused() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let (_lock, driver) = agent(&[&disk]);
        assert_eq!(driver.request(Operation::FREEZE), Status::Ok);
        let output = freeze(&["--for=1s"], &[&disk.mount_point])
            .output()
            .unwrap();
        let (status, out, err) = text(&output);
        assert_eq!((status, out.as_str()), (Some(3), ""), "{err}");
        assert!(disk.is_frozen(), "the host's hold goes on");
        assert_eq!(driver.request(Operation::THAW), Status::Ok);
    });
}
