//! Where the command writes, and when.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;

use super::scratch::{Disk, in_namespace, own_run};
use super::{LONG, freeze, held, send, text, wait};

#[test]
fn its_output_may_lie_on_what_it_freezes() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let [out, err] = ["out", "err"].map(|name| disk.mount_point.join(name));
        let mut command = freeze(&["--for=300ms", "--report"], &[&disk.mount_point]);
        command.stdout(File::create(&out).unwrap());
        command.stderr(File::create(&err).unwrap());
        command.current_dir(&disk.mount_point);
        let output = wait(held(command, &disk));
        assert_eq!(output.status.code(), Some(0));
        let told = fs::read_to_string(out).unwrap();
        assert!(told.contains("▒ freeze") && told.contains('█'), "{told}");
        assert!(!told.contains('\x1b'), "colours in a file: {told}");
        assert!(
            fs::read_to_string(err)
                .unwrap()
                .starts_with("freezing 1 file system")
        );
    });
}

#[test]
fn nothing_is_printed_while_anything_is_frozen() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let mut child = held(freeze(&[LONG], &[&disk.mount_point]), &disk);
        // The disk is frozen, so everything that comes before is there.
        let mut before = vec![0; 64 * 1024];
        let length = child.stderr.as_mut().unwrap().read(&mut before).unwrap();
        let before = String::from_utf8_lossy(&before[..length]).into_owned();
        let first = "freezing 1 file system, holding for 1m 40s; Ctrl-C thaws at once\n";
        assert!(before.starts_with(first), "{before}");
        let streams = [
            child.stdout.as_ref().unwrap().as_fd(),
            child.stderr.as_ref().unwrap().as_fd(),
        ];
        let mut streams = streams.map(|stream| PollFd::new(stream, PollFlags::POLLIN));
        assert_eq!(poll(&mut streams, 300_u16), Ok(0), "{streams:?}");
        send(&child, Signal::SIGTERM);
        assert_eq!(text(&wait(child)).0, Some(4));
    });
}
