//! Gathers the facts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::facts::{
    Agent, Broken, Disks, Facts, Guardian, Hooks, Machine, Settings, SleepingWriter,
};
use super::processes;
use crate::config::{Config, ConfigError, OnFailure, Strictness};
use crate::control::{self, Client, ClientError, Request};
use crate::filesystems::text::printable;
use crate::filesystems::{
    DeviceNodes, DeviceNumber, Plan, Policy, Reason, Roots, Scan, scan_below,
};
use crate::hooks::discover;
use crate::quiesce::at_work;
use crate::quiesce::backend::Target;
use crate::quiesce::error::with_causes;
use crate::quiesce::handle::{Handle, Unreached};
use crate::quiesce::hung_task;
use crate::quiesce::ledger;
use crate::quiesce::writers::{Search, SleepState, Writer, WriterRules, Writers};
use crate::status::{Status, Work};

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
        (Ok(scan), Ok(plan)) => disks(scan, plan, &roots),
        _ => Disks::default(),
    };
    let mut agent = processes::agent(root, &pids, &holders);
    if let Some(agent) = agent.as_mut().filter(|agent| agent.halted.is_none()) {
        ask(agent, &below_root(root, control::DEFAULT_PATH));
    }
    // Not in a hold, and not of a machine that is made up.
    let is_busy = agent.as_ref().is_some_and(|agent| agent.busy);
    let mut disks = disks;
    if let (Ok(plan), false, true) = (&plan, is_busy, root == Path::new("/")) {
        (disks.dead, disks.unreached) = probe(plan);
    }
    Facts {
        machine: machine(places),
        agent,
        in_ledger: in_ledger(root),
        settings: settings(config),
        disks,
        waiting: processes::waiting(&proc, &pids),
        writers: plan
            .as_ref()
            .map_or_else(|_| Vec::new(), |plan| writers(&proc, plan, config.ok())),
        hooks: hooks(places, config.ok()),
        plan: plan.map_err(Clone::clone),
        holders,
    }
}

/// A file system that opens does so within milliseconds.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens what a checkpoint would open: those that take no writes, and those that do not open. What does not answer in time is left to its thread.
fn probe(plan: &Plan) -> (Vec<String>, Vec<(String, bool)>) {
    let superblocks = plan.superblocks();
    let targets: Vec<(Target, bool)> = superblocks
        .map(|superblock| (superblock.into(), !superblock.mounts.is_empty()))
        .collect();
    let (found, probed) = mpsc::channel();
    // Without a thread, what the tables show has to do.
    let _ = thread::Builder::new().spawn(move || {
        for (target, in_sight) in targets {
            let why = match Handle::open(&target) {
                Ok(handle) if handle.is_shut_down() => Some((Unreached::ShutDown, String::new())),
                Ok(_) => None,
                Err(error) => Some((error.why(), with_causes(&error))),
            };
            if found.send((target.to_string(), in_sight, why)).is_err() {
                break;
            }
        }
    });
    let deadline = Instant::now() + PROBE_TIMEOUT;
    let (mut dead, mut unreached) = (Vec::new(), Vec::new());
    let left = || deadline.saturating_duration_since(Instant::now());
    while let Ok((place, in_sight, why)) = probed.recv_timeout(left()) {
        match why {
            Some((Unreached::ShutDown, _)) => dead.push(place),
            Some((Unreached::OutOfReach, error)) => unreached.push((error, in_sight)),
            // It has been unmounted meanwhile, or is of no concern.
            Some((Unreached::Gone | Unreached::ReadOnly, _)) | None => {}
        }
    }
    (dead, unreached)
}

/// One that has not stirred for this long is no ordinary writer.
const SLEEP: Duration = Duration::from_millis(300);

fn writers(proc: &Path, plan: &Plan, config: Option<&Config>) -> Vec<SleepingWriter> {
    let devices: Vec<_> = plan
        .superblocks()
        .map(|superblock| superblock.dev)
        .collect();
    let rules = config.map(WriterRules::from).unwrap_or_default();
    let mut search = Search::of(&devices, rules.clone());
    search.proc = proc;
    let mut found = Writers::gather(&search);
    if found.iter().next().is_none() {
        return Vec::new();
    }
    thread::sleep(SLEEP);
    found.retain_asleep();
    // One that is stopped has left its system call, and holds nothing.
    let of_plan = found
        .iter()
        .filter(|writer| writer.device.is_some() && writer.state != SleepState::Stopped);
    let writer = |writer: &Writer| SleepingWriter {
        text: writer.to_string(),
        is_interrupted: writer.can_be_interrupted(&rules),
    };
    of_plan.map(writer).collect()
}

/// What the agent itself says goes before what its processes look like.
fn ask(agent: &mut Agent, socket: &Path) {
    let answer = Client::connect(socket).and_then(|mut client| client.ask(&Request::Check));
    let status: Status = match answer {
        Ok(status) => status,
        // It is starting, or the lock is that of a freeze by hand.
        Err(ClientError::NotRunning) => return,
        Err(error) => {
            agent.silent = Some(with_causes(&error));
            return;
        }
    };
    agent.registered = status.service.registered;
    agent.guardian = match status.guardian.alive {
        true => Guardian::Alive,
        false => Guardian::Missing,
    };
    agent.busy = status.work != Work::Idle;
}

fn below_root(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
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
        node: fs::symlink_metadata(below_root(&places.root, hvutil_sys::device::DEFAULT_PATH))
            .is_ok(),
        kernel: kernel(&places.root),
        panics_after: hung_task::panics_after(&places.root.join("proc")),
    }
}

/// The first two numbers of its release (`man 5 proc`).
fn kernel(root: &Path) -> Option<(u32, u32)> {
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).ok()?;
    let mut numbers = release
        .trim()
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().ok());
    numbers.next().flatten().zip(numbers.next().flatten())
}

fn settings(config: Result<&Config, &ConfigError>) -> Settings {
    match config {
        Ok(config) => Settings {
            error: None,
            strict: config.strictness == Strictness::Strict,
            flush_only: config.strictness == Strictness::FlushOnly,
            hooks_enabled: config.hooks.enabled,
            frozen: Duration::from_secs(config.limits.freeze + config.limits.hold),
            ignore_hung_task_panic: config.limits.ignore_hung_task_panic,
        },
        Err(error) => Settings {
            error: Some(with_causes(error)),
            ..Settings::default()
        },
    }
}

fn in_ledger(root: &Path) -> Vec<String> {
    let path = below_root(root, ledger::DEFAULT_PATH);
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

/// Opening a btrfs that answers takes microseconds.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// What each btrfs of the plan is busy with. In a thread, which is left alone if something keeps it from opening one.
fn at_work(plan: &Plan, sys: &Path) -> Vec<(String, String)> {
    let btrfs = plan.superblocks().filter(|fs| fs.fstype == "btrfs");
    let targets: Vec<_> = btrfs.map(Target::from).collect();
    if targets.is_empty() {
        return Vec::new();
    }
    let (found, operations) = mpsc::channel();
    let sys = sys.to_owned();
    let look = move || {
        for target in targets {
            let Ok(handle) = Handle::open(&target) else {
                continue;
            };
            if let Some(operation) = at_work::operation(&handle, &sys) {
                let _ = found.send((target.to_string(), operation));
            }
        }
    };
    if thread::Builder::new().spawn(look).is_err() {
        return Vec::new();
    }
    let deadline = Instant::now() + OPEN_TIMEOUT;
    std::iter::from_fn(|| {
        let left = deadline.saturating_duration_since(Instant::now());
        operations.recv_timeout(left).ok()
    })
    .collect()
}

fn disks(scan: &Scan, plan: &Plan, roots: &Roots) -> Disks {
    let mut suspended = Vec::new();
    let mut mapped = Vec::new();
    for superblock in plan.superblocks() {
        let place = printable(superblock.mount_point());
        let names = below(scan, superblock.dev);
        if names.iter().any(|name| name.starts_with("dm-")) {
            mapped.push(place.clone());
        }
        for name in names {
            let mapper = roots.sys.join("block").join(name).join("dm");
            let read = |file| fs::read_to_string(mapper.join(file)).unwrap_or_default();
            if read("suspended").trim() == "1" {
                suspended.push((place.clone(), printable(read("name").trim())));
            }
        }
    }
    Disks {
        at_work: at_work(plan, &roots.sys),
        suspended,
        mapped,
        dead: Vec::new(),
        unreached: Vec::new(),
        broken: broken(scan, plan, roots),
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

/// What takes no writes any more although every mount of it was asked for writable: its driver has seen to that. `mount -o ro` sets both.
fn broken(scan: &Scan, plan: &Plan, roots: &Roots) -> Vec<Broken> {
    let frozen = plan
        .superblocks()
        .map(|superblock| (superblock.dev, superblock.mount_point()));
    let read_only = plan
        .left_out
        .iter()
        .filter(|left_out| left_out.reason == Reason::ReadOnly);
    let read_only = read_only.map(|left_out| (left_out.dev, left_out.mount_point()));
    let mut broken = Vec::new();
    for (dev, place) in frozen.chain(read_only) {
        let mounts = || scan.mounts.iter().filter(|mount| mount.dev == dev);
        let Some(first) = mounts().next() else {
            continue;
        };
        let shown = first.superblock_is_read_only();
        let turned = shown
            && mounts().all(|mount| has_option(mount.options, "rw"))
            && !NEVER_WRITABLE.contains(&first.fstype);
        let driver = Driver::of(scan, dev, first.fstype, roots);
        if turned || !shown && driver.gave_up() {
            broken.push(Broken {
                place: printable(place),
                errors: driver.number("errors_count"),
                shown,
            });
        }
    }
    broken
}

fn has_option(options: &OsStr, wanted: &str) -> bool {
    let mut options = options.as_encoded_bytes().split(|byte| *byte == b',');
    options.any(|option| option == wanted.as_bytes())
}

/// What the driver of a file system tells of it.
struct Driver<'a> {
    name: &'a str,
    fstype: &'a str,
    roots: &'a Roots,
}

impl<'a> Driver<'a> {
    fn of(scan: &'a Scan, dev: DeviceNumber, fstype: &'a str, roots: &'a Roots) -> Self {
        let device = scan.devices.get(&dev);
        let name = device.map_or("", |device| device.name.as_str());
        Self {
            name,
            fstype,
            roots,
        }
    }

    fn number(&self, file: &str) -> Option<u64> {
        let place = self.roots.sys.join("fs").join(self.fstype).join(self.name);
        fs::read_to_string(place.join(file))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// ext4 with `errors=remount-ro` has met an error since the machine was started. The journal is closed then, and since Linux 6.12 (and in older kernels with its
    /// corrections) the mount table does not show it.
    fn gave_up(&self) -> bool {
        let options = self
            .roots
            .proc
            .join("fs")
            .join(self.fstype)
            .join(self.name)
            .join("options");
        let stops = fs::read_to_string(options)
            .is_ok_and(|options| options.lines().any(|option| option == "errors=remount-ro"));
        let stat = fs::read_to_string(self.roots.proc.join("stat")).unwrap_or_default();
        let started = stat
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        stops
            && self.number("errors_count").is_some_and(|count| count > 0)
            && self.number("last_error_time") >= started.or(Some(0))
    }
}
