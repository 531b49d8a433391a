//! The file systems: what the plan leaves out, what a freeze would wait for, what the host's image does not have. Pure.

use super::facts::Facts;
use super::{Cause, Finding, Severity};
use crate::filesystems::text::{capitalised, printable};
use crate::filesystems::{LeftOut, Plan, Reason};
use crate::quiesce::hung_task::frozen_at_most;

/// More than this of a kind are counted, not named.
const MOST_NAMED: usize = 8;

pub(super) fn look(facts: &Facts, findings: &mut Vec<Finding>) {
    match &facts.plan {
        Ok(plan) => planned(facts, plan, findings),
        Err(error) => findings.push(Finding::new(
            Cause::PlanFails,
            Severity::Error,
            format!("What a checkpoint would freeze cannot be found out: {error}"),
            "The message names the file; nothing is frozen before it can be read",
        )),
    }
    if !facts.waiting.is_empty() && facts.in_ledger.is_empty() {
        let who = facts.waiting.iter().map(ToString::to_string);
        findings.push(Finding::new(
            Cause::FrozenAlready,
            Severity::Error,
            format!("A file system is frozen by someone else: these wait for its thaw: {}.", named(who)),
            "Find out who froze it (fsfreeze, a snapshot, another backup agent) and have them thaw it, or as the last resort: hv-vssd thaw MOUNT-POINT",
        ));
    }
    sleeping(facts, findings);
    for (place, operation) in &facts.disks.at_work {
        findings.push(Finding::new(
            Cause::OperationAtWork,
            Severity::Error,
            format!("{place} is busy with an operation of its own ({operation}), for whose end a freeze and all writers would wait; no freeze is begun until then."),
            "Take the backup when it is done, or end it: btrfs scrub cancel, btrfs balance pause",
        ));
    }
    for (place, device) in &facts.disks.suspended {
        findings.push(Finding::new(
            Cause::DeviceSuspended,
            Severity::Error,
            format!("{place} is on {device}, which is suspended: its freeze would not return."),
            format!("Find out who suspended it (a snapshot, an interrupted lvm command); as the last resort: dmsetup resume {device}"),
        ));
    }
    let is_defective = facts.machine.kernel.is_some_and(loses_suspensions);
    if is_defective && !facts.disks.mapped.is_empty() {
        findings.push(Finding::new(
            Cause::SnapshotInHold,
            Severity::Note,
            format!(
                "Linux from 6.8 on, and before 7.3, loses count when a device is suspended and resumed within a hold, as an LVM snapshot does: later snapshots of it freeze nothing, and it cannot be mounted again. On device mapper are: {}.",
                named(facts.disks.mapped.iter().cloned())
            ),
            "Take no LVM snapshots while a checkpoint is under way; a device that it has happened to must be made anew (lvchange -an, then -ay; or a restart)",
        ));
    }
    panics(facts, findings);
    for broken in &facts.disks.broken {
        let place = &broken.place;
        let counted = match broken.errors {
            Some(0) | None => String::new(),
            Some(1) => ", after 1 error that its driver has on record".to_owned(),
            Some(count) => format!(", after {count} errors that its driver has on record"),
        };
        let (severity, what) = match (broken.shown, facts.settings.strict) {
            (true, _) => (Severity::Warning, "an image of it may be damaged"),
            (false, false) => (
                Severity::Warning,
                "a checkpoint leaves it out, and an image of it may be damaged",
            ),
            (false, true) => (
                Severity::Error,
                "the configuration says strictness = \"strict\", so every checkpoint fails, and an image of it may be damaged",
            ),
        };
        findings.push(Finding::new(
            Cause::ReadOnlyAfterError,
            severity,
            format!("{place} was mounted writable and takes no writes any more{counted}: {what}."),
            "See the kernel's log, unmount it, have it checked (fsck), and look after its disk",
        ));
    }
}

fn panics(facts: &Facts, findings: &mut Vec<Finding>) {
    let (Some(after), settings) = (facts.machine.panics_after, &facts.settings) else {
        return;
    };
    let most = frozen_at_most(after);
    if settings.flush_only || settings.frozen <= most {
        return;
    }
    let what = match settings.ignore_hung_task_panic {
        true => {
            "the configuration insists on longer limits, so a checkpoint can bring the machine down"
                .to_owned()
        }
        false => format!(
            "freeze and hold together end after {} s, before their own limits",
            most.as_secs()
        ),
    };
    findings.push(Finding::new(
        Cause::HungTaskPanic,
        Severity::Warning,
        format!(
            "The kernel panics when a program waits for {} s (kernel.hung_task_panic), and whoever writes in a hold waits: {what}.",
            after.as_secs()
        ),
        "Set kernel.hung_task_timeout_secs to limits.freeze and limits.hold together and 20 more, or lower those limits",
    ));
}

fn sleeping(facts: &Facts, findings: &mut Vec<Finding>) {
    let named_of = |interrupted: bool| {
        let of = facts
            .writers
            .iter()
            .filter(|writer| writer.is_interrupted == interrupted);
        of.map(|writer| writer.text.clone()).collect::<Vec<_>>()
    };
    let (interrupted, others) = (named_of(true), named_of(false));
    if !interrupted.is_empty() {
        findings.push(Finding::new(
            Cause::SleepingWriter,
            Severity::Note,
            format!("Programs sleep in a write, for which a freeze would have to wait; it interrupts them, and they go on undisturbed: {}.", named(interrupted)),
            "Nothing need be done; exclude_processes in the configuration leaves one alone",
        ));
    }
    if !others.is_empty() {
        findings.push(Finding::new(
            Cause::SleepingWriter,
            Severity::Warning,
            format!("Programs sleep in a write, are not or cannot be interrupted, and hold up the freeze of their file system as long as they do: {}.", named(others)),
            "Let them go on or end them; of a FUSE server that does not answer, abort the connection (/sys/fs/fuse/connections); see interrupt_writers and exclude_processes",
        ));
    }
}

/// The freezes of a block device nest with ours from 6.8 on, and are counted right from 7.3 on; seen on 6.12 (`fs/super.c`).
fn loses_suspensions(kernel: (u32, u32)) -> bool {
    ((6, 8)..(7, 3)).contains(&kernel)
}

fn planned(facts: &Facts, plan: &Plan, findings: &mut Vec<Finding>) {
    let severity = match facts.settings.strict {
        true => Severity::Error,
        false => Severity::Warning,
    };
    for unseen in plan.unseen() {
        findings.push(Finding::new(
            Cause::UnseenMounts,
            severity,
            format!("{}: what is mounted only there would be missed.", capitalised(&unseen)),
            "Run hv-vssd as root with CAP_SYS_PTRACE, as its unit has it; of a user with too many mounts, end the process that has them",
        ));
    }
    let left_out = |wanted: fn(Reason) -> bool| {
        let all = plan
            .left_out
            .iter()
            .filter(|left_out| wanted(left_out.reason));
        all.map(name).collect::<Vec<_>>()
    };
    let (severity, what) = match facts.settings.strict {
        true => (
            Severity::Error,
            "the configuration says strictness = \"strict\", so every checkpoint fails",
        ),
        false => (
            Severity::Warning,
            "what is written to them during the hold may be in the image in part",
        ),
    };
    let cannot = left_out(|reason| reason.is_a_gap() && !reason.is_dead());
    if !cannot.is_empty() {
        findings.push(Finding::new(
            Cause::CannotFreeze,
            severity,
            format!("File systems that cannot be frozen: {}; {what}.", named(cannot)),
            "Nothing need be done for one that is hardly ever written to, such as /boot/efi; others: use a type that can be frozen (ext4, xfs, btrfs), or unmount them",
        ));
    }
    let mut dead = left_out(Reason::is_dead);
    dead.extend(facts.disks.dead.iter().cloned());
    if !dead.is_empty() {
        let what = match facts.settings.strict {
            true => "the configuration says strictness = \"strict\", so every checkpoint fails",
            false => "they are left out, and an image of them may be damaged",
        };
        findings.push(Finding::new(
            Cause::TakesNoWrites,
            severity,
            format!("File systems that take no writes any more, since their disk was pulled or their driver has shut them down: {}; {what}.", named(dead)),
            "See the kernel's log and unmount them; have them checked (fsck) before they are mounted again, and look after their disk",
        ));
    }
    for (place, in_sight) in &facts.disks.unreached {
        let (severity, what) = match in_sight {
            true => (Severity::Error, "every checkpoint fails".to_owned()),
            false => (severity, what.replace("them", "it")),
        };
        findings.push(Finding::new(
            Cause::OutOfReach,
            severity,
            format!("A file system does not open: {place}; {what}."),
            "Unmount it, end whoever uses it, or exclude it in the configuration (exclude_devices)",
        ));
    }
    let excluded = left_out(|reason| matches!(reason, Reason::Excluded | Reason::NotIncluded));
    if !excluded.is_empty() {
        findings.push(Finding::new(
            Cause::Excluded,
            Severity::Warning,
            format!(
                "Left out by the configuration, and written to during the hold: {}.",
                named(excluded)
            ),
            "See [filesystems] in 'hv-vssd config' if that is not what you want",
        ));
    }
    let elsewhere = plan.superblocks().filter_map(|superblock| {
        let served = superblock.served_by?;
        let place = printable(superblock.mount_point());
        Some(format!("{place} ({served})"))
    });
    let elsewhere: Vec<String> = elsewhere.collect();
    if !elsewhere.is_empty() {
        findings.push(Finding::new(
            Cause::NotInImage,
            Severity::Warning,
            format!("On disks that are not the virtual machine's, so the host's image does not contain them: {}.", named(elsewhere)),
            "They are frozen with the others; back them up where they are stored, at the same moment if they belong together",
        ));
    }
}

fn name(left_out: &LeftOut) -> String {
    format!(
        "{} ({})",
        printable(left_out.mount_point()),
        printable(&left_out.fstype)
    )
}

fn named(all: impl IntoIterator<Item = String>) -> String {
    let all: Vec<String> = all.into_iter().collect();
    let shown = all
        .iter()
        .take(MOST_NAMED)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().checked_sub(MOST_NAMED) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}
