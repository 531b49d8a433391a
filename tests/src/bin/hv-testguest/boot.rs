//! From the initramfs into a Debian system on the first disk, as an initrd does it.
//!
//! The server is started before systemd and belongs to no unit of it: whatever systemd stops,
//! isolates or waits for, the bed can still ask. Its program lies on /run, its memory is
//! locked: a frozen `/` does not stop it.

use std::convert::Infallible;
use std::ffi::CString;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::unistd::{chroot, execv};
use tests::proto::{MODULES_DIR, TESTGUEST};

use crate::Outcome;
use crate::serve::load_module;

/// Where the system's disk is mounted first.
const ROOT: &str = "/sysroot";

/// What the kernel was told to boot.
pub(crate) struct System {
    device: String,
    kind: String,
    plugged: bool,
}

impl System {
    /// From the kernel's command line; `None` if the initramfs is all there is.
    pub(crate) fn of(command_line: &str) -> Option<Self> {
        let word = |name: &str| {
            let mut words = command_line.split_whitespace();
            words.find_map(|word| word.strip_prefix(name).map(ToOwned::to_owned))
        };
        Some(Self {
            device: word("root=")?,
            kind: word("rootfstype=")?,
            plugged: word("hv_testbed.plugged").is_some(),
        })
    }

    /// Does not return unless something fails.
    pub(crate) fn start(&self) -> Result<Infallible, Box<dyn std::error::Error>> {
        self.mount()?;
        fill()?;
        if self.plugged {
            // Long before udev looks for devices, as in a machine whose host offers the service.
            for module in ["hv_vmbus.ko", "hv_utils.ko"] {
                load_module(&format!("{MODULES_DIR}/{module}"), "")?;
            }
        }
        for at in ["/dev", "/proc", "/sys", "/run"] {
            let to = format!("{ROOT}{at}");
            mount(
                Some(at),
                to.as_str(),
                None::<&str>,
                MsFlags::MS_MOVE,
                None::<&str>,
            )?;
        }
        // The initramfs is memory.
        for name in ["bin", "sbin", "lib", "lib64", "usr", "overlay", "init"] {
            let path = Path::new("/").join(name);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        std::env::set_current_dir(ROOT)?;
        mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
        chroot(".")?;
        std::env::set_current_dir("/")?;
        Command::new(TESTGUEST)
            .arg("serve-system")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .spawn()?;
        let init = CString::new("/sbin/init")?;
        Ok(execv(&init, &[&init])?)
    }

    fn mount(&self) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !Path::new(&self.device).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::create_dir_all(ROOT)?;
        Command::new("/sbin/modprobe").arg(&self.kind).status()?;
        let (device, kind) = (self.device.as_str(), self.kind.as_str());
        mount(
            Some(device),
            ROOT,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )?;
        Ok(())
    }
}

/// The files that the bed adds to the system, then its script, which finds the system as its root.
fn fill() -> Outcome {
    let run = |command: &mut Command| match command.status()? {
        status if status.success() => Ok(()),
        status => Err(std::io::Error::other(format!("{command:?}: {status}"))),
    };
    if Path::new("/overlay").exists() {
        run(Command::new("/bin/cp").args(["-a", "/overlay/.", ROOT]))?;
    }
    if let Ok(script) = std::fs::read_to_string("/etc/system-setup") {
        let shell = ["/bin/sh", "-euc", &script];
        run(Command::new("/bin/chroot").arg(ROOT).args(shell))?;
    }
    std::fs::create_dir_all(MODULES_DIR)?;
    std::fs::copy("/init", TESTGUEST)?;
    for module in ["hv_vmbus.ko", "hv_utils.ko"] {
        std::fs::copy(format!("/lib/{module}"), format!("{MODULES_DIR}/{module}"))?;
    }
    Ok(())
}
