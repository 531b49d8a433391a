//! A system that has booted and has the agent registered, kept as it is then: made once for each kernel and agent, so that a
//! scenario that is not about the boot does not wait for one.

use super::System;
use crate::agent::Agent;
use crate::assets::Kernel;
use crate::error::Step;
use crate::guest::{Guest, Saved, saved};
use crate::proto::MODULES_DIR;

impl System<'_> {
    /// A guest that goes on from there; the state is kept first if there is none, or one that is out of date.
    pub(crate) fn go_on(&self, kernel: Kernel, agent: Agent, name: &str) -> Step<Guest> {
        let made = self.made(agent)?;
        let disks = made.disks();
        let saved = Saved {
            kernel,
            // A state fits the machine that it was kept of alone.
            kind: format!(
                "{}-{}-{}-{}M",
                self.variant.name(),
                kernel.series(),
                agent.name(),
                self.memory_mib
            ),
            stamp: saved::stamp(kernel, &[], &made.stamp()?)?,
            disks: disks.len(),
            more: &[],
            memory_mib: self.memory_mib,
            modules: MODULES_DIR,
            name: name.to_owned(),
        };
        Guest::go_on_from(&saved, || {
            let mut guest = self.power_on(disks, name, kernel)?;
            self.bring_up(&mut guest, agent)?;
            Ok(guest)
        })
    }
}
