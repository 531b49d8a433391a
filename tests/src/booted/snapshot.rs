//! A system that has booted and has the agent registered, kept as it is then: made once for each kernel and agent, so that a
//! scenario that is not about the boot does not wait for one.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg};

use super::System;
use crate::agent::Agent;
use crate::assets::Kernel;
use crate::error::{BedResult, Context, Step};
use crate::guest::{Guest, Saved};
use crate::paths;

impl System<'_> {
    /// A guest that goes on from there; the state is kept first if there is none, or one that is out of date.
    pub(crate) fn go_on(&self, kernel: Kernel, agent: Agent, name: &str) -> Step<Guest> {
        let disks = self.fresh_disks(agent)?;
        let home = self.home(kernel, agent);
        let parent = paths::testbed().join("snapshots");
        fs::create_dir_all(&parent).doing(|| format!("making {}", parent.display()))?;
        let lock = home.with_extension("lock");
        let file = File::create(&lock).doing(|| format!("opening {}", lock.display()))?;
        let _lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| errno)
            .doing(|| format!("locking {}", lock.display()))?;
        let stamp = self.snapshot_stamp(kernel, agent)?;
        if !fs::read_to_string(home.join("stamp")).is_ok_and(|old| old == stamp) {
            let scratch =
                tempfile::tempdir_in(&parent).doing(|| "making a scratch directory".into())?;
            let kept = scratch.path().join("kept");
            fs::create_dir(&kept).doing(|| format!("making {}", kept.display()))?;
            let mut guest = self.power_on(disks.clone(), name, kernel)?;
            self.bring_up(&mut guest, agent)?;
            guest.save(&kept)?;
            fs::write(kept.join("stamp"), stamp).doing(|| "writing the stamp".into())?;
            let _ = fs::remove_dir_all(&home);
            fs::rename(&kept, &home).doing(|| format!("keeping {}", home.display()))?;
        }
        Ok(Guest::restore(&Saved {
            kernel,
            from: &home,
            disks: disks.len(),
            memory_mib: self.memory_mib,
            name: name.to_owned(),
        })?)
    }

    fn home(&self, kernel: Kernel, agent: Agent) -> PathBuf {
        let name = format!(
            "{}-{}-{}",
            self.variant.name(),
            kernel.series(),
            agent.name()
        );
        paths::testbed()
            .join("snapshots")
            .join(name.replace('.', "_"))
    }

    /// All that the state depends on.
    fn snapshot_stamp(&self, kernel: Kernel, agent: Agent) -> BedResult<String> {
        let mut hasher = DefaultHasher::new();
        self.made(agent)?.stamp()?.hash(&mut hasher);
        crate::assets::stamp(kernel)?.hash(&mut hasher);
        // Its server is in the guest's memory, and QEMU reads what QEMU has written.
        for program in [
            paths::testguest(),
            PathBuf::from("/usr/bin/qemu-system-x86_64"),
        ] {
            let program =
                fs::metadata(&program).and_then(|found| Ok((found.len(), found.modified()?)));
            program
                .doing(|| "looking at a program".into())?
                .hash(&mut hasher);
        }
        Ok(format!("{:016x}\n", hasher.finish()))
    }
}
