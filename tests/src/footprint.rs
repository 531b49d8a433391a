//! What a service of a booted system occupies, so that growth shows.

use std::time::Duration;

use crate::error::{BedError, BedResult, Failure, Step};
use crate::guest::{Guest, poll_until};

/// What follows a checkpoint, such as its report, is over within this time on a busy machine.
const REST_LIMIT: Duration = Duration::from_secs(30);

/// Memory that comes and goes with the allocator and the kernel's caches, in KiB: far less than a page a checkpoint.
const SLACK_KIB: u64 = 256;

/// All processes of a service's control group together. Memory is in KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// The processes' ids, in their order.
    pub pids: Vec<u32>,
    /// Their threads.
    pub threads: u64,
    /// Their open files.
    pub files: u64,
    /// Resident memory; what two processes share counts twice.
    pub resident: u64,
    /// Resident memory; what processes share is divided among them.
    pub proportional: u64,
    /// Locked memory.
    pub locked: u64,
    /// What the kernel charges to the group and cannot take back: no page cache, no cache of names.
    pub charged: u64,
    /// Mounts that the first of them sees.
    pub mounts: u64,
}

impl Footprint {
    /// Of a service at rest: two looks that find the same processes, threads and files.
    ///
    /// # Errors
    /// It never rests, or a process has ended meanwhile.
    pub fn at_rest(guest: &Guest, unit: &str) -> Step<Self> {
        let mut last = Self::look(guest, unit)?;
        let settled = poll_until(REST_LIMIT, || {
            std::thread::sleep(Duration::from_secs(1));
            let now = Self::look(guest, unit)?;
            let same =
                now.pids == last.pids && now.threads == last.threads && now.files == last.files;
            last = now;
            Ok::<_, Failure>(same.then_some(()))
        })?;
        match settled {
            Some(()) => Ok(last),
            None => Err(Failure::Promise(format!(
                "{unit} comes to no rest: {last:?}"
            ))),
        }
    }

    fn look(guest: &Guest, unit: &str) -> BedResult<Self> {
        let group = guest.sh(&format!("systemctl show --value -p ControlGroup {unit}"))?;
        let group = format!("/sys/fs/cgroup{}", group.trim());
        let listed = guest.read(&format!("{group}/cgroup.procs"))?;
        let mut pids: Vec<u32> = listed.lines().flat_map(str::parse).collect();
        pids.sort_unstable();
        let first = pids
            .first()
            .ok_or_else(|| BedError::Guest(format!("{unit} has no process")))?;
        let mounts = guest.read(&format!("/proc/{first}/mountinfo"))?;
        let charged = guest.read(&format!("{group}/memory.stat"))?;
        let mut all = Self {
            threads: 0,
            files: 0,
            resident: 0,
            proportional: 0,
            locked: 0,
            charged: ["anon ", "kernel_stack ", "sock ", "slab_unreclaimable "]
                .map(|word| sum(&charged, word))
                .iter()
                .sum::<u64>()
                / 1024,
            mounts: count(mounts.lines()),
            pids,
        };
        for pid in &all.pids {
            let status = guest.read(&format!("/proc/{pid}/status"))?;
            let memory = guest.read(&format!("/proc/{pid}/smaps_rollup"))?;
            let files = guest.sh(&format!("ls /proc/{pid}/fd"))?;
            all.threads += sum(&status, "Threads:");
            // Not VmLck, which counts addresses: the stacks of threads that have ended stay mapped for the next ones.
            all.locked += sum(&memory, "Locked:");
            all.resident += sum(&memory, "Rss:");
            all.proportional += sum(&memory, "Pss:");
            all.files += count(files.lines());
        }
        Ok(all)
    }

    /// What is more now than it was in `before`, beyond what memory comes and goes; `None` if nothing is.
    #[must_use]
    pub fn growth_since(&self, before: &Self) -> Option<String> {
        let exact = [
            ("threads", before.threads, self.threads),
            ("open files", before.files, self.files),
            ("mounts", before.mounts, self.mounts),
        ];
        let loose = [
            ("KiB resident", before.resident, self.resident),
            ("KiB proportional", before.proportional, self.proportional),
            ("KiB locked", before.locked, self.locked),
            ("KiB charged", before.charged, self.charged),
        ];
        if self.pids != before.pids {
            return Some(format!(
                "processes {:?} became {:?}",
                before.pids, self.pids
            ));
        }
        let grown = exact.into_iter().filter(|(_, was, is)| is > was).chain(
            loose
                .into_iter()
                .filter(|(_, was, is)| *is > was + SLACK_KIB),
        );
        let grown: Vec<String> = grown
            .map(|(what, was, is)| format!("{was} {what} became {is}"))
            .collect();
        (!grown.is_empty()).then(|| grown.join(", "))
    }
}

/// Of the numbers after a word at the beginning of lines.
#[must_use]
pub fn sum(text: &str, word: &str) -> u64 {
    let numbers = text.lines().filter_map(|line| line.strip_prefix(word));
    numbers
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .sum()
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint() -> Footprint {
        Footprint {
            pids: vec![100, 101],
            threads: 3,
            files: 30,
            resident: 9000,
            proportional: 5000,
            locked: 6000,
            charged: 2000,
            mounts: 25,
        }
    }

    #[test]
    fn less_and_a_little_more_memory_is_no_growth() {
        let before = footprint();
        let mut now = footprint();
        now.resident += SLACK_KIB;
        now.files -= 1;
        assert_eq!(now.growth_since(&before), None);
    }

    #[test]
    fn one_file_a_thread_or_much_memory_is_growth() {
        let before = footprint();
        let mut now = footprint();
        now.files += 1;
        now.charged += SLACK_KIB + 1;
        assert_eq!(
            now.growth_since(&before).as_deref(),
            Some("30 open files became 31, 2000 KiB charged became 2257")
        );
    }

    #[test]
    fn another_process_is_growth() {
        let mut now = footprint();
        now.pids = vec![100, 102];
        assert!(now.growth_since(&footprint()).is_some());
    }
}
