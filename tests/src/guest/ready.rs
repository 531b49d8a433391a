//! Guests that are an initramfs alone, kept as they are when their init answers: a scenario's disks are added to one, and it
//! need not wait for a boot.

use super::saved::{self, Saved};
use super::{Guest, Plan};
use crate::error::{BedError, BedResult};
use crate::{kept, paths};

impl Guest {
    /// As [`Guest::boot`], but from a kept state, which is made first if there is none, or one that is out of date. The guest's
    /// clock shows the time of that boot.
    ///
    /// # Errors
    /// As [`Guest::boot`]; a disk that is throttled is for guests that boot.
    pub fn ready(plan: &Plan<'_>) -> BedResult<Self> {
        let programs = if plan.with_hv_vssd {
            vec![paths::hv_vssd(), paths::hv_vssd_faults()]
        } else {
            Vec::new()
        };
        let kind = format!(
            "initramfs-{}{}",
            plan.kernel.series(),
            if plan.with_hv_vssd { "-hv-vssd" } else { "" }
        );
        let stamp = saved::stamp(plan.kernel, &programs, "")?;
        let _lock = kept::directory(&saved::home(), &kind, &stamp, |into| {
            let without_disks = Plan {
                disks: &[],
                name: plan.name.clone(),
                ..*plan
            };
            Self::boot(&without_disks)?.save(into)?;
            Ok::<_, BedError>(())
        })?;
        Self::restore(&Saved {
            kernel: plan.kernel,
            from: &saved::home().join(kind),
            disks: 0,
            more: plan.disks,
            memory_mib: super::MEMORY_MIB,
            modules: super::MODULES,
            name: plan.name.clone(),
        })
    }
}
