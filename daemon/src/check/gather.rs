//! Gathers the facts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::facts::{Disks, Facts, Hooks, Machine, Settings};
use super::processes;
use crate::config::{Config, ConfigError, OnFailure, Strictness};
use crate::filesystems::text::printable;
use crate::filesystems::{DeviceNodes, DeviceNumber, Plan, Policy, Roots, Scan, scan_below};
use crate::hooks::discover;
use crate::quiesce::error::with_causes;
use crate::quiesce::ledger;

/// The host's backup service on the VMBus (HV_VSS_GUID in the kernel's include/linux/hyperv.h).
const VSS: &str = "35fa2e29-ea23-4236-96ae-3a6ebacba440";

/// Types that are never writable.
const NEVER_WRITABLE: [&str; 6] = ["cramfs", "efs", "erofs", "iso9660", "romfs", "squashfs"];

/// Where to look; anything but the system's own is for tests.
#[derive(Debug, Clone)]
pub struct Places {
    /// What stands for `/`: `proc`, `sys`, `dev` and `run` are read below it.
    pub root: PathBuf,
    /// Where the hooks are.
    pub hooks: discover::Places,
    /// As the hypervisor calls itself; `None`: it is asked.
    pub hypervisor: Option<Option<String>>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            root: "/".into(),
            hooks: discover::Places::default(),
            hypervisor: None,
        }
    }
}

/// Gathers all facts, with this configuration, and this of it for the plan. Freezes nothing, and waits for no file system.
#[must_use]
pub fn gather(places: &Places, config: Result<&Config, &ConfigError>, policy: &Policy) -> Facts {
    let root = &places.root;
    let proc = root.join("proc");
    let pids = processes::all(&proc);
    let holders = processes::holders(&proc, &pids, Path::new(hvutil_sys::device::DEFAULT_PATH));
    let roots = Roots {
        proc: proc.clone(),
        sys: root.join("sys"),
        dev: DeviceNodes::System,
        other_namespaces: true,
    };
    let scan = scan_below(&roots).map_err(|error| with_causes(&error));
    let plan = scan.as_ref().map(|scan| Plan::new(scan, policy));
    let disks = match (&scan, &plan) {
        (Ok(scan), Ok(plan)) => disks(scan, plan, &roots.sys),
        _ => Disks::default(),
    };
    let agent = processes::agent(root, &pids, &holders);
    Facts {
        machine: machine(places),
        agent,
        in_ledger: in_ledger(root),
        settings: settings(config),
        plan: plan.map_err(Clone::clone),
        disks,
        waiting: processes::waiting(&proc, &pids),
        hooks: hooks(places, config.ok()),
        holders,
    }
}

fn machine(places: &Places) -> Machine {
    let sys = places.root.join("sys");
    let firmware = |file: &str| {
        let text = fs::read_to_string(sys.join("class/dmi/id").join(file)).ok()?;
        Some(printable(text.trim()))
    };
    let bus = sys.join("bus/vmbus");
    let services: Vec<PathBuf> = fs::read_dir(bus.join("devices"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    let is_vss = |service: &PathBuf| {
        fs::read_to_string(service.join("class_id")).is_ok_and(|class| {
            let class = class.trim().trim_start_matches('{').trim_end_matches('}');
            class.eq_ignore_ascii_case(VSS)
        })
    };
    // A slash in a device's name is an exclamation mark in sysfs.
    let device = sys.join("class/misc/vmbus!hv_vss").exists();
    let node = hvutil_sys::device::DEFAULT_PATH.trim_start_matches('/');
    Machine {
        hypervisor: match &places.hypervisor {
            Some(known) => known.clone(),
            None => hvutil_sys::hypervisor::name(),
        },
        firmware: firmware("sys_vendor").zip(firmware("product_name")),
        bus: bus.exists(),
        services: services.len(),
        vss: services.iter().any(is_vss),
        driver: device || sys.join("module/hv_utils").exists(),
        device,
        node: fs::symlink_metadata(places.root.join(node)).is_ok(),
    }
}

fn settings(config: Result<&Config, &ConfigError>) -> Settings {
    match config {
        Ok(config) => Settings {
            error: None,
            strict: config.strictness == Strictness::Strict,
            flush_only: config.strictness == Strictness::FlushOnly,
            hooks_enabled: config.hooks.enabled,
        },
        Err(error) => Settings {
            error: Some(with_causes(error)),
            ..Settings::default()
        },
    }
}

fn in_ledger(root: &Path) -> Vec<String> {
    let path = root.join(ledger::DEFAULT_PATH.trim_start_matches('/'));
    let entries = ledger::read(&path).ok().flatten().unwrap_or_default();
    let entries = entries.iter().filter(|entry| entry.mark.wants_thaw());
    entries
        .map(|entry| match entry.mount_point.as_os_str().is_empty() {
            true => printable(&entry.source),
            false => printable(&entry.mount_point),
        })
        .collect()
}

fn hooks(places: &Places, config: Option<&Config>) -> Hooks {
    let found = discover::discover(&places.hooks);
    let fails = |name: &str| {
        config.is_some_and(|config| config.hooks.on_failure_of(name) == OnFailure::Abort)
    };
    Hooks {
        accepted: found.hooks.into_iter().map(|hook| hook.name).collect(),
        refused: found
            .refused
            .into_iter()
            .map(|refused| {
                let why = refused.why.to_string();
                (printable(&refused.path), why, fails(&refused.name))
            })
            .collect(),
    }
}

fn disks(scan: &Scan, plan: &Plan, sys: &Path) -> Disks {
    let mut suspended = Vec::new();
    for superblock in plan.superblocks() {
        let place = printable(superblock.mount_point());
        for name in below(scan, superblock.dev) {
            let mapper = sys.join("block").join(name).join("dm");
            let read = |file| fs::read_to_string(mapper.join(file)).unwrap_or_default();
            if read("suspended").trim() == "1" {
                suspended.push((place.clone(), printable(read("name").trim())));
            }
        }
    }
    Disks {
        suspended,
        broken: broken(scan, plan, sys),
    }
}

/// The kernel's names of all devices beneath a superblock.
fn below(scan: &Scan, dev: DeviceNumber) -> Vec<&str> {
    let mut todo: Vec<DeviceNumber> = scan.members.get(&dev).cloned().unwrap_or_default();
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    while let Some(dev) = todo.pop() {
        if let Some(device) = scan.devices.get(&dev).filter(|_| seen.insert(dev)) {
            names.push(device.name.as_str());
            todo.extend(&device.below);
        }
    }
    names
}

/// What is read-only although every mount of it was asked for writable: its driver has made it so. `mount -o ro` sets both.
fn broken(scan: &Scan, plan: &Plan, sys: &Path) -> Vec<(String, Option<u64>)> {
    let mut broken = Vec::new();
    let mut look = |dev: DeviceNumber, place: &Path| {
        let mut mounts = scan
            .mounts
            .iter()
            .filter(|mount| mount.dev == dev)
            .peekable();
        let Some(first) = mounts.peek().copied() else {
            return;
        };
        let options = |options: &std::ffi::OsStr, wanted: &str| {
            let options = options.as_encoded_bytes();
            options
                .split(|byte| *byte == b',')
                .any(|option| option == wanted.as_bytes())
        };
        let turned =
            first.superblock_is_read_only() && mounts.all(|mount| options(mount.options, "rw"));
        // Newer drivers keep the flag and say so in words (ext4_show_options in fs/ext4/super.c).
        let says = ["emergency_ro", "shutdown"]
            .iter()
            .any(|word| options(first.super_options, word));
        if says || turned && !NEVER_WRITABLE.contains(&first.fstype) {
            let name = scan
                .devices
                .get(&dev)
                .map_or("", |device| device.name.as_str());
            let count = fs::read_to_string(
                sys.join("fs")
                    .join(first.fstype)
                    .join(name)
                    .join("errors_count"),
            );
            broken.push((
                printable(place),
                count.ok().and_then(|count| count.trim().parse().ok()),
            ));
        }
    };
    for superblock in plan.superblocks() {
        look(superblock.dev, superblock.mount_point());
    }
    for left_out in &plan.left_out {
        let is_local = matches!(left_out.reason, crate::filesystems::Reason::ReadOnly);
        if is_local {
            look(left_out.dev, left_out.mount_point());
        }
    }
    broken
}
