//! `hv-vssd thaw --all`, on a machine of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount};

use super::scratch::{Disk, in_namespace, mount_on};
use super::{NONE, freeze_at};

/// All that `thaw --all` could find here; the script ends before it when it finds anything else.
const SCRIPT: &str = r#"
/busybox mount -t proc proc /proc || exit 90
/busybox cat /proc/[0-9]*/mountinfo >/tables || exit 91
/busybox grep -qF " $DISK " /tables || exit 92
others=$(/busybox grep -vE ' - (tmpfs|proc|sysfs|devtmpfs) ' /tables | /busybox grep -vcF " $DISK ")
[ "$others" = 0 ] || exit 93
/hv-vssd thaw --all
"#;

/// Copies a program, with the libraries it loads, to where `root` will be the root directory.
fn install(root: &Path, program: &Path, name: &str) {
    fs::copy(program, root.join(name)).unwrap();
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for library in text.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(library, to).unwrap();
    }
}

#[test]
fn the_command_thaws_all_that_it_can_see() {
    in_namespace(|place| {
        let busybox = Path::new("/bin/busybox");
        assert!(busybox.exists(), "this test needs busybox-static");
        // A machine of its own: a root directory in memory, one disk, and no process but its own.
        let root = place.join("root");
        fs::create_dir(&root).unwrap();
        let empty = MsFlags::empty();
        let make = |fstype: &str, to: &Path| {
            fs::create_dir_all(to).unwrap();
            mount(Some(fstype), to, Some(fstype), empty, NONE).unwrap();
        };
        make("tmpfs", &root);
        make("sysfs", &root.join("sys"));
        // The kernel's account of what is live is of the whole machine, whoever has it mounted: other tests' disks, too.
        make("tmpfs", &root.join("sys/fs"));
        make("devtmpfs", &root.join("dev"));
        for name in ["proc", "old", "disk"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        install(&root, Path::new(env!("CARGO_BIN_EXE_hv-vssd")), "hv-vssd");
        install(&root, busybox, "busybox");
        let disk = Disk::new(place, "disk", "ext4");
        mount_on(disk.device(), &root.join("disk"), "ext4");
        disk.umount().unwrap();
        freeze_at(&root.join("disk"));
        let dev = disk.dev.to_string();

        nix::unistd::pivot_root(&root, &root.join("old")).unwrap();
        nix::unistd::chdir("/").unwrap();
        nix::mount::umount2("/old", MntFlags::MNT_DETACH).unwrap();
        // From here on this process has nothing else mounted; its children are the first of their own process numbers.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).unwrap();
        let run = || {
            Command::new("/busybox")
                .args(["sh", "-c", SCRIPT])
                .env("DISK", &dev)
                .output()
                .unwrap()
        };
        let output = run();
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(
            out.starts_with("/disk") && out.ends_with(": thawed\n"),
            "{out}"
        );
        assert_eq!(out.lines().count(), 1, "{out}");
        assert!(!disk.is_frozen());
    });
}
