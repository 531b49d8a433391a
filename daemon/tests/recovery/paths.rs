//! `hv-vssd thaw PATH`: every path that leads to a file system, as `fsfreeze -u` takes it.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use nix::mount::{MsFlags, mount};

use super::freeze;
use super::scratch::{Disk, in_namespace, own_run};

/// `hv-vssd thaw`, in a directory and a process group of its own.
fn thaw(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_hv-vssd"))
        .arg("thaw")
        .args(arguments)
        .current_dir(directory)
        .process_group(0)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn every_path_on_a_file_system_thaws_it_and_both_names_are_told() {
    in_namespace(|place| {
        own_run();
        let other = Disk::new(place, "other", "ext4");
        for fstype in ["ext4", "xfs", "btrfs"] {
            let disk = Disk::new(place, fstype, fstype);
            let point = disk.mount_point.to_str().unwrap();
            let name = disk.mount_point.file_name().unwrap().to_str().unwrap();
            fs::create_dir_all(disk.mount_point.join("deep/er")).unwrap();
            fs::write(disk.mount_point.join("deep/file"), "").unwrap();
            let link = place.join("link");
            let _ = fs::remove_file(&link);
            symlink(&disk.mount_point, &link).unwrap();
            // Without symbolic links "elsewhere/.." would be the directory of the links.
            let elsewhere = place.join("elsewhere");
            let _ = fs::remove_file(&elsewhere);
            symlink(disk.mount_point.join("deep/er"), &elsewhere).unwrap();
            freeze(&other);
            for given in [
                format!("{point}/"),
                name.to_owned(),
                format!("./{name}/."),
                format!("{name}/deep/../deep/file"),
                "link".to_owned(),
                "link/deep".to_owned(),
                "elsewhere/..".to_owned(),
                format!("{point}/deep/er"),
                disk.device().to_str().unwrap().to_owned(),
            ] {
                freeze(&disk);
                let (status, out, err) = thaw(place, &[&given]);
                assert_eq!((status, err.as_str()), (Some(0), ""), "{given}: {out}");
                let named = if given == point {
                    given.clone()
                } else {
                    format!("{given} (on {point})")
                };
                assert_eq!(out, format!("{named}: thawed\n"));
                assert!(!disk.is_frozen(), "{given}");
                assert!(other.is_frozen(), "{given} is on another");
            }
            let _ = thaw(place, &["other-mounted"]);
        }
    });
}

#[test]
fn a_file_system_that_several_paths_are_on_is_thawed_once() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        fs::write(disk.mount_point.join("file"), "").unwrap();
        freeze(&disk);
        let arguments = ["--json", "disk-mounted/file", "disk-mounted", "none"];
        let (status, out, _) = thaw(place, &arguments);
        assert_eq!(status, Some(1));
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        let all = told["file_systems"].as_array().unwrap();
        assert_eq!(all.len(), 3, "{out}");
        for (index, path) in ["disk-mounted/file", "disk-mounted"].iter().enumerate() {
            assert_eq!(all[index]["path"], *path);
            assert_eq!(all[index]["name"], disk.mount_point.to_str().unwrap());
            assert_eq!(all[index]["result"], "thawed");
            assert_eq!(all[index]["is_guess"], false);
        }
        assert_eq!(all[2]["name"], "none");
        let error = all[2]["error"].as_str().unwrap();
        assert!(error.contains("No such file"), "{error}");
    });
}

#[test]
fn a_disk_that_another_mount_hides_is_thawed_by_its_mount_point() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        let [lower, upper] = ["lower", "lower/upper"].map(|name| place.join(name));
        fs::create_dir_all(&upper).unwrap();
        super::scratch::bind(&disk.mount_point, &upper);
        disk.umount().unwrap();
        mount_tmpfs(&lower);
        let point = upper.to_str().unwrap();
        // Frozen through the handle that the test keeps.
        disk.freeze();
        let (status, out, _) = thaw(place, &[point]);
        // Linux 6.1 refuses a second mount of a frozen superblock.
        if status == Some(0) {
            assert_eq!(out, format!("{point}: thawed\n"));
            assert!(!disk.is_frozen());
        } else {
            assert!(out.contains("is busy"), "{out}");
        }
    });
}

#[test]
fn a_path_whose_mount_has_gone_names_the_file_system_that_is_there_now() {
    in_namespace(|place| {
        own_run();
        let parent = Disk::new(place, "parent", "ext4");
        let child = Disk::with_image(place, &parent.mount_point, "child", "ext4");
        freeze(&child);
        child.umount().unwrap();
        let given = child.mount_point.to_str().unwrap();
        let (status, out, _) = thaw(place, &[given]);
        let point = parent.mount_point.display();
        let expected = format!("{given} (on {point}): was not frozen\n");
        assert_eq!((status, out), (Some(0), expected));
        assert!(child.is_frozen());
    });
}

#[test]
fn a_look_up_that_never_returns_does_not_keep_the_command() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        // An automounter that answers nobody but its own process group.
        let auto = place.join("auto");
        fs::create_dir(&auto).unwrap();
        let (_requests, pipe) = nix::unistd::pipe().unwrap();
        let options = format!(
            "fd={},pgrp={},minproto=5,maxproto=5,indirect",
            std::os::fd::AsRawFd::as_raw_fd(&pipe),
            nix::unistd::getpgrp()
        );
        let autofs = Some("autofs");
        mount(autofs, &auto, autofs, MsFlags::empty(), Some(&*options)).unwrap();
        freeze(&disk);
        let started = Instant::now();
        let (status, out, err) = thaw(place, &["auto/x/../../disk-mounted/file"]);
        assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
        assert_eq!((status, err.as_str()), (Some(0), ""), "{out}");
        let lines: Vec<&str> = out.lines().collect();
        let point = disk.mount_point.display();
        assert_eq!(
            lines[0],
            format!("auto/x/../../disk-mounted/file (on {point}): thawed")
        );
        assert!(lines[1].contains("did not return within 3 s"), "{out}");
        assert!(!disk.is_frozen());
        // A mount point is not looked up at all.
        freeze(&disk);
        let started = Instant::now();
        let (status, out, _) = thaw(place, &["disk-mounted"]);
        assert_eq!(status, Some(0), "{out}");
        assert!(started.elapsed().as_secs() < 3);
    });
}

fn mount_tmpfs(at: &PathBuf) {
    let tmpfs = Some("tmpfs");
    mount(tmpfs, at, tmpfs, MsFlags::empty(), super::NONE).unwrap();
}

#[test]
fn a_device_of_which_nothing_is_mounted_is_told() {
    in_namespace(|place| {
        own_run();
        let disk = Disk::new(place, "disk", "ext4");
        disk.umount().unwrap();
        File::open(disk.device()).unwrap();
        let device = disk.device().to_str().unwrap();
        let (status, out, _) = thaw(place, &[device]);
        assert_eq!(status, Some(1));
        let told = "is a block device, and no file system of it is mounted here";
        assert!(out.contains(told), "{out}");
    });
}
