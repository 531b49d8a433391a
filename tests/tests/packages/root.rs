//! A root directory to install a package into: a shell, and stand-ins for systemd's, udev's and Debian's tools that say
//! what they were asked and answer from files below /stub.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::command::{output, said};

/// The names of the C daemon's unit; those of Alias= in hv-vssd.service.
pub(crate) const NAMES: [&str; 3] = [
    "hv-vss-daemon.service",
    "hypervvssd.service",
    "hv_vss_daemon.service",
];

/// Every stand-in begins with this: it writes down how it was called.
const RECORD: &str = "#!/bin/sh\necho \"${0##*/} $*\" >> /stub/calls\n";

/// Enabling makes the links of Alias=, by whichever tool, unless the preset says no.
const LINKS: &str = "
etc=/etc/systemd/system
link() {
    mkdir -p $etc
    for name in hv-vss-daemon.service hypervvssd.service hv_vss_daemon.service; do
        [ -e $etc/$name ] || [ -L $etc/$name ] || ln -s /usr/lib/systemd/system/hv-vssd.service $etc/$name
    done
}
unlink() {
    for name in hv-vss-daemon.service hypervvssd.service hv_vss_daemon.service; do
        case $(readlink $etc/$name) in */hv-vssd.service) rm $etc/$name ;; esac
    done
}
linked() {
    [ -L $etc/hv-vss-daemon.service ] && [ -L $etc/hypervvssd.service ] && [ -L $etc/hv_vss_daemon.service ]
}
";

const SYSTEMCTL: &str = "
for unit; do :; done
case \" $* \" in
*' --property=FragmentPath '*) cat /stub/fragment/$unit 2>/dev/null; exit 0 ;;
*' --property=MainPID '*) cat /stub/pid 2>/dev/null; exit 0 ;;
*' is-active '*) [ -e /stub/active/$unit ] ;;
*' is-failed '*) [ -e /stub/failed/$unit ] ;;
*' is-enabled '*)
    [ $unit != hv-vssd.service ] || [ \"$(readlink $etc/$unit)\" != /dev/null ] || exit 1
    if [ $unit = hv-vssd.service ]; then
        case $(readlink $etc/hv-vss-daemon.service) in */hv-vssd.service) exit 0 ;; esac
        exit 1
    fi
    [ -e /stub/enabled/$unit ] ;;
*' preset '*) [ -e /stub/preset-disables ] || link ;;
*' enable '*) link ;;
*' disable '*) unlink ;;
*' start '*) touch /stub/active/$unit ;;
*' stop '*) rm -f /stub/active/$unit ;;
esac
";

/// As deb-systemd-helper: what it enabled is on record, and a link that has gone since means that the administrator disabled it.
const HELPER: &str = "
[ \"$1\" != --quiet ] || shift
state=/var/lib/systemd/deb-systemd-helper-enabled/$2.dsh-also
mask=/var/lib/systemd/deb-systemd-helper-masked/$2
case $1 in
debian-installed) [ -e $state ] ;;
was-enabled) [ ! -e $state ] || linked ;;
enable) if [ -e $state ] || [ ! -e /stub/preset-disables ]; then link; fi; mkdir -p ${state%/*}; touch $state ;;
update-state) mkdir -p ${state%/*}; touch $state ;;
unmask) if [ -e $mask ]; then rm $mask $etc/$2; fi ;;
purge) rm -f $state; unlink ;;
esac
";

const INVOKE: &str = "exec systemctl \"$@\"\n";

/// Says what is on the record of the dead, and clears it.
const HV_VSSD: &str = "rm -f /run/hv-vssd/ledger\n";

pub(crate) struct Root {
    directory: TempDir,
}

impl Root {
    /// A shell and no more: as in the chroot that an image is made in.
    pub(crate) fn bare() -> Self {
        let root = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for directory in [
            "bin",
            "dev",
            "etc/systemd/system",
            "sbin",
            "stub",
            "usr/bin",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
        ] {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        for file in [
            "var/lib/dpkg/status",
            "var/lib/dpkg/available",
            "stub/calls",
        ] {
            fs::write(root.path(file), "").unwrap();
        }
        // Linked statically: no libraries beside it.
        fs::copy("/bin/busybox", root.path("bin/busybox")).unwrap();
        for applet in [
            "cat", "grep", "ln", "mkdir", "printf", "readlink", "rm", "rmdir", "sed", "sh", "touch",
        ] {
            symlink("busybox", root.path("bin").join(applet)).unwrap();
        }
        let made = Command::new("mknod")
            .arg("-m666")
            .arg(root.path("dev/null"))
            .args(["c", "1", "3"])
            .status();
        assert!(made.unwrap().success(), "needs root");
        root
    }

    /// A system that runs, with Debian's tools or without them; a host that offers the service.
    pub(crate) fn running(debian: bool) -> Self {
        let root = Self::bare();
        for directory in [
            "run/systemd/system",
            "dev/vmbus",
            "stub/active",
            "stub/enabled",
            "stub/failed",
            "stub/fragment",
        ] {
            fs::create_dir_all(root.path(directory)).unwrap();
        }
        fs::write(root.path("dev/vmbus/hv_vss"), "").unwrap();
        root.tool("systemctl", &format!("{LINKS}{SYSTEMCTL}"));
        root.tool("udevadm", "cat /stub/udev 2>/dev/null\n");
        if debian {
            root.tool("deb-systemd-helper", &format!("{LINKS}{HELPER}"));
            root.tool("deb-systemd-invoke", INVOKE);
            root.tool("aa-enabled", "");
            root.tool("apparmor_parser", "");
        }
        root
    }

    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.directory
            .path()
            .join(path.strip_prefix("/").unwrap_or(path))
    }

    fn tool(&self, name: &str, text: &str) {
        let path = self.path("usr/bin").join(name);
        fs::write(&path, format!("{RECORD}{text}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// In place of the program that was installed, which would look at this machine's file systems.
    pub(crate) fn stand_in(&self) {
        let path = self.path("usr/sbin/hv-vssd");
        fs::write(&path, format!("{RECORD}{HV_VSSD}")).unwrap();
    }

    /// The distribution's C daemon, running.
    pub(crate) fn c_daemon_runs(&self) {
        let name = NAMES[0];
        let unit = format!("/usr/lib/systemd/system/{name}");
        self.write(&format!("stub/fragment/{name}"), &unit);
        self.write(&format!("stub/active/{name}"), "");
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs `dpkg` on this root: its scripts are called as on a real system.
    pub(crate) fn dpkg(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("dpkg");
        command
            .arg(format!("--root={}", self.directory.path().display()))
            .args(["--force-depends", "--force-confold", "--log=/dev/null"])
            .args(arguments);
        self.succeeds(&mut command)
    }

    pub(crate) fn rpm(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("rpm");
        command
            .arg("--root")
            .arg(self.directory.path())
            .args(arguments);
        self.succeeds(&mut command)
    }

    /// A script of a package, called by itself.
    pub(crate) fn chroot(&self, arguments: &[&str]) -> String {
        self.succeeds(
            Command::new("chroot")
                .arg(self.directory.path())
                .args(arguments),
        )
    }

    fn succeeds(&self, command: &mut Command) -> String {
        // What this machine's environment says must not reach the scripts.
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let output = output(command).unwrap();
        let text = said(&output);
        assert!(output.status.success(), "{command:?}: {text}");
        for complaint in ["not found", "syntax error", "can't "] {
            assert!(!text.contains(complaint), "{command:?}: {text}");
        }
        text
    }

    /// What the stand-ins were asked since the last time, without questions that change nothing.
    pub(crate) fn calls(&self) -> Vec<String> {
        let file = self.path("stub/calls");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, "").unwrap();
        let asks = |line: &&str| {
            [
                "show",
                "is-active",
                "is-enabled",
                "is-failed",
                "was-enabled",
                "debian-installed",
                "aa-enabled",
                "udevadm info",
            ]
            .iter()
            .any(|question| line.contains(question))
        };
        // deb-systemd-invoke asks systemctl.
        let again = |line: &&str| line.starts_with("deb-systemd-invoke");
        text.lines()
            .filter(|line| !asks(line) && !again(line))
            .map(str::to_owned)
            .collect()
    }

    /// The names of the C daemon that mean hv-vssd.
    pub(crate) fn aliases(&self) -> Vec<&'static str> {
        let ours = |name: &&&str| {
            fs::read_link(self.path("etc/systemd/system").join(name))
                .is_ok_and(|to| to.ends_with("hv-vssd.service"))
        };
        NAMES.iter().filter(ours).copied().collect()
    }
}
