use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

fn one(line: &[u8]) -> Mount<'static> {
    // A test's table may outlive it.
    let mounts = Box::leak(Box::new(parse(&[line, b"\n"].concat()).unwrap()));
    assert_eq!(mounts.len(), 1);
    mounts.get(0).unwrap()
}

#[test]
fn reads_the_example_of_the_manual() {
    let mount =
        one(b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue");
    assert_eq!(
        mount,
        Mount {
            id: 36,
            parent: 35,
            dev: DeviceNumber::new(98, 0),
            root: Path::new("/mnt1"),
            mount_point: Path::new("/mnt2"),
            options: OsStr::new("rw,noatime"),
            fstype: "ext3",
            source: OsStr::new("/dev/root"),
            super_options: OsStr::new("rw,errors=continue"),
        }
    );
}

#[test]
fn takes_any_number_of_optional_fields() {
    for fields in [
        "",
        " shared:1",
        " shared:1 master:2 propagate_from:3 unbindable later:x",
    ] {
        let line = format!("1 0 8:1 / / rw{fields} - ext4 /dev/sda1 rw");
        assert_eq!(one(line.as_bytes()).fstype, "ext4");
    }
}

#[test]
fn undoes_octal_escapes_and_leaves_other_backslashes() {
    let mount =
        one(b"1 0 8:1 / /a\\040b\\011c\\012d\\134e\\043f\\9\\04 rw - ext4 /dev/sda\\0401 rw");
    assert_eq!(mount.mount_point.as_os_str(), "/a b\tc\nd\\e#f\\9\\04");
    assert_eq!(mount.source, "/dev/sda 1");
}

#[test]
fn keeps_bytes_that_are_not_utf8() {
    let mount = one(b"1 0 8:1 / /\xff\xfe rw - ext4 /dev/\xc3 rw");
    assert_eq!(mount.mount_point.as_os_str().as_bytes(), b"/\xff\xfe");
    assert_eq!(mount.source.as_bytes(), b"/dev/\xc3");
}

#[test]
fn an_empty_source_is_a_source() {
    let mount = one(b"1 0 0:5 / /t rw - tmpfs  rw,size=4k");
    assert_eq!(mount.source, "");
    assert_eq!(mount.super_options, "rw,size=4k");
}

#[test]
fn takes_removed_roots_and_namespaces() {
    assert_eq!(
        one(b"1 0 8:1 /gone//deleted /mnt//deleted rw - ext4 /dev/sda1 rw").root,
        Path::new("/gone//deleted")
    );
    assert_eq!(
        one(b"1 0 0:4 net:[4026532281] /run/netns/x rw - nsfs nsfs rw").root,
        Path::new("net:[4026532281]")
    );
}

#[test]
fn read_only_is_a_property_of_the_superblock() {
    assert!(!one(b"1 0 8:1 / / ro - ext4 /dev/sda1 rw").superblock_is_read_only());
    assert!(one(b"1 0 8:1 / / rw - ext4 /dev/sda1 ro,relatime").superblock_is_read_only());
    assert!(!one(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw,ro,rox").superblock_is_read_only());
}

#[test]
fn finds_an_option_with_an_escaped_comma() {
    let mount =
        one(b"1 0 0:9 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/u\\0541,workdir=/w");
    assert_eq!(mount.super_option("upperdir").unwrap(), "/u,1");
    assert_eq!(mount.super_option("upper"), None);
}

#[test]
fn an_unreadable_line_is_one_clear_error() {
    let table = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 8:2 / /\x1b[2J rw ext4 /dev/sda2 rw\n";
    let error = parse(table).unwrap_err();
    assert_eq!((error.line, error.fault), (2, Fault::Separator));
    assert_eq!(
        error.to_string(),
        "line 2 of the mount table cannot be read (the separator \"-\" is missing): \
         \"2 1 8:2 / /\\u{1b}[2J rw ext4 /dev/sda2 rw\"; nothing is frozen, because a file system could be missed"
    );
}

#[test]
fn every_fault_is_told_apart() {
    for (line, fault) in [
        (&b"\n"[..], Fault::Id),
        (b"x 0 8:1 / / rw - ext4 /dev/sda1 rw\n", Fault::Id),
        (b"1 -1 8:1 / / rw - ext4 /dev/sda1 rw\n", Fault::Id),
        (b"1 0 8,1 / / rw - ext4 /dev/sda1 rw\n", Fault::Device),
        (b"1 0 8:1\n", Fault::Root),
        (b"1 0 8:1 / mnt rw - ext4 /dev/sda1 rw\n", Fault::MountPoint),
        (b"1 0 8:1 / /\n", Fault::Options),
        (b"1 0 8:1 / / rw\n", Fault::Separator),
        (b"1 0 8:1 / / rw -\n", Fault::Type),
        (b"1 0 8:1 / / rw - ext4\n", Fault::Source),
        (b"1 0 8:1 / / rw - ext4 /dev/sda1\n", Fault::SuperOptions),
        (
            b"1 0 8:1 / / rw - ext4 /dev/sda1 relatime\n",
            Fault::SuperOptions,
        ),
        (b"1 0 8:1 / / rw - ext4 /dev/sda1 rw", Fault::CutOff),
    ] {
        assert_eq!(
            parse(line).unwrap_err().fault,
            fault,
            "{}",
            excerpt(line, 80)
        );
    }
}

#[test]
fn the_excerpt_of_a_long_line_is_bounded() {
    let error = parse(&[vec![b'a'; 1_000_000], b"\n".to_vec()].concat()).unwrap_err();
    assert!(error.to_string().len() < 500);
}

#[test]
fn ten_thousand_long_lines_take_linear_time() {
    let line = format!(
        "1 0 8:1 / /{} rw - ext4 /dev/sda1 rw,{}\n",
        "a".repeat(500),
        "o".repeat(5000)
    );
    let table = line.repeat(10_000);
    let start = Instant::now();
    assert_eq!(parse(table.as_bytes()).unwrap().len(), 10_000);
    // 55 MB: quadratic in the lines would take hours, quadratic in a line minutes.
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_source_with_bare_blanks_is_read_if_its_type_is_never_frozen() {
    for (line, source, options) in [
        (
            "zfs tank/name with blanks rw,xattr,posixacl",
            "tank/name with blanks",
            "rw,xattr,posixacl",
        ),
        (
            "zfs tank/ro then rw ro,xattr",
            "tank/ro then rw",
            "ro,xattr",
        ),
        ("zfs tank/a rw b rw", "tank/a rw b", "rw"),
        ("fuse.x a b rw,user_id=0 x", "a b", "rw,user_id=0 x"),
        ("9p C:\\ D rw,trans=fd", "C:\\ D", "rw,trans=fd"),
        // Whatever is there, the line is one of a file system that is never frozen.
        ("zfs tank/a relatime", "tank/a", "relatime"),
        ("zfs tank/a", "tank/a", ""),
        ("zfs tank/a  ", "tank/a ", ""),
    ] {
        let mount = one(format!("1 0 0:50 / /m rw - {line}").as_bytes());
        assert_eq!(
            (mount.source, mount.super_options),
            (OsStr::new(source), OsStr::new(options)),
            "{line}"
        );
        assert_eq!(mount.mount_point, Path::new("/m"));
    }
    assert!(one(b"1 0 0:50 / /m rw - zfs tank/rw or not ro,xattr").superblock_is_read_only());
    for line in [
        "ext4 /dev/my disk rw",
        "btrfs /dev/sda1",
        "somefs-of-2031 a b rw",
    ] {
        let error = parse(format!("1 0 8:1 / /m rw - {line}\n").as_bytes()).unwrap_err();
        assert_eq!(
            (error.line, error.fault),
            (1, Fault::SuperOptions),
            "{line}"
        );
        assert!(error.excerpt.contains(line), "{error}");
    }
    let cut_off = parse(b"1 0 0:50 / /m rw - zfs tank/a b").unwrap_err();
    assert_eq!(cut_off.fault, Fault::CutOff);
}
