//! A system that has booted and has the agent registered, kept as it is then: made once for each kernel and agent, so that a
//! scenario that is not about the boot does not wait for one.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::System;
use crate::agent::Agent;
use crate::assets::{self, Kernel};
use crate::debian::Made;
use crate::error::{BedResult, Context, Failure, Step};
use crate::guest::{Guest, Saved};
use crate::{kept, paths};

impl System<'_> {
    /// A guest that goes on from there; the state is kept first if there is none, or one that is out of date.
    pub(crate) fn go_on(&self, kernel: Kernel, agent: Agent, name: &str) -> Step<Guest> {
        let made = self.made(agent)?;
        let disks = made.disks();
        let parent = paths::testbed().join("snapshots");
        // A state fits the machine that it was kept of alone.
        let kind = format!(
            "{}-{}-{}-{}M",
            self.variant.name(),
            kernel.series(),
            agent.name(),
            self.memory_mib
        );
        let _lock = kept::directory(&parent, &kind, &stamp(&made, kernel)?, |into| {
            let mut guest = self.power_on(disks.clone(), name, kernel)?;
            self.bring_up(&mut guest, agent)?;
            Ok::<_, Failure>(guest.save(into)?)
        })?;
        Ok(Guest::restore(&Saved {
            kernel,
            from: &parent.join(kind),
            disks: disks.len(),
            memory_mib: self.memory_mib,
            name: name.to_owned(),
        })?)
    }
}

/// All that a state depends on.
fn stamp(made: &Made, kernel: Kernel) -> BedResult<String> {
    let mut hasher = DefaultHasher::new();
    (made.stamp()?, assets::stamp(kernel)?).hash(&mut hasher);
    // The bed's server is in the guest's memory, and QEMU reads what QEMU has written.
    for program in [
        paths::testguest(),
        PathBuf::from("/usr/bin/qemu-system-x86_64"),
    ] {
        let found = fs::metadata(&program).and_then(|found| Ok((found.len(), found.modified()?)));
        let found = found.doing(|| format!("looking at {}", program.display()))?;
        found.hash(&mut hasher);
    }
    Ok(format!("{:016x}\n", hasher.finish()))
}
