//! The kernel's own account of freezes and thaws, from probes on `freeze_super` and
//! `thaw_super`: which superblocks, in which order, with which result.

use std::collections::HashMap;

use crate::error::BedResult;
use crate::guest::Guest;

/// Where tracefs is mounted in the guest.
const TRACE: &str = "/sys/kernel/tracing";

/// A freeze or thaw that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Of the superblock of a device, `major:minor`.
    Freeze(String),
    /// Of the superblock of a device, `major:minor`.
    Thaw(String),
}

impl Guest {
    /// Starts the account.
    ///
    /// # Errors
    /// The kernel has no probes.
    pub fn watch_freezes(&self) -> BedResult<()> {
        // s_dev follows s_list in struct super_block, on both kernels.
        self.sh(&format!(
            "mount -t tracefs none {TRACE}; cd {TRACE}
             echo 'p:freeze freeze_super dev=+16(%di):u32' >> kprobe_events
             echo 'r:frozen freeze_super ret=$retval:s32' >> kprobe_events
             echo 'p:thaw thaw_super dev=+16(%di):u32' >> kprobe_events
             echo 'r:thawed thaw_super ret=$retval:s32' >> kprobe_events
             echo 1 > tracing_on; echo 1 > events/kprobes/enable"
        ))?;
        Ok(())
    }

    /// The account since the last call, successes only, in the order of their ends.
    ///
    /// # Errors
    /// The account was not started.
    pub fn freezes(&self) -> BedResult<Vec<Event>> {
        let trace = self.read(&format!("{TRACE}/trace"))?;
        self.write(&format!("{TRACE}/trace"), "")?;
        Ok(events(&trace))
    }
}

fn events(trace: &str) -> Vec<Event> {
    let mut running = HashMap::new();
    let mut events = Vec::new();
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let Some(task) = line.split_whitespace().next() else {
            continue;
        };
        let value = |name: &str| line.rsplit_once(name).map(|(_, value)| value.trim());
        if let Some(dev) = value("dev=").and_then(|dev| dev.parse::<u32>().ok()) {
            // The kernel's own encoding: 12 bits major, 20 bits minor.
            let device = format!("{}:{}", dev >> 20, dev & 0xf_ffff);
            running.insert(task, device);
        } else if let Some(device) = running.remove(task) {
            if value("ret=") != Some("0") {
                continue;
            }
            events.push(if line.contains(" frozen: ") {
                Event::Freeze(device)
            } else {
                Event::Thaw(device)
            });
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_matched_to_their_calls_and_failures_left_out() {
        let trace = "# tracer: nop\n\
            a-10 [000] ..... 1.0: freeze: (freeze_super+0x0/0x1) dev=265289728\n\
            b-11 [001] ..... 1.1: freeze: (freeze_super+0x0/0x1) dev=265289744\n\
            b-11 [001] ..... 1.2: frozen: (ioctl <- freeze_super) ret=0\n\
            a-10 [000] ..... 1.3: frozen: (ioctl <- freeze_super) ret=-16\n\
            a-10 [000] ..... 1.4: thaw: (thaw_super+0x0/0x1) dev=265289744\n\
            a-10 [000] ..... 1.5: thawed: (ioctl <- thaw_super) ret=0\n";
        let device = || "253:16".to_owned();
        assert_eq!(
            events(trace),
            [Event::Freeze(device()), Event::Thaw(device())]
        );
    }
}
