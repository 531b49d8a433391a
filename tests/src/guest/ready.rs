//! Guests that are an initramfs alone, kept as they are when their init answers: a scenario's disks are added to one, and it
//! need not wait for a boot.

use super::saved::{self, Saved};
use super::{Guest, MEMORY_MIB, MODULES, Plan};
use crate::error::BedResult;
use crate::paths;

impl Guest {
    /// As [`Guest::boot`], but from a kept state, which is made first if there is none, or one that is out of date. The guest's
    /// clock shows the time of that boot.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn ready(plan: &Plan<'_>) -> BedResult<Self> {
        let (of_hv_vssd, programs) = if plan.with_hv_vssd {
            ("-hv-vssd", vec![paths::hv_vssd(), paths::hv_vssd_faults()])
        } else {
            ("", Vec::new())
        };
        let saved = Saved {
            kernel: plan.kernel,
            kind: format!("initramfs-{}{of_hv_vssd}", plan.kernel.series()),
            stamp: saved::stamp(plan.kernel, &programs, "")?,
            disks: 0,
            more: plan.disks,
            memory_mib: MEMORY_MIB,
            modules: MODULES,
            name: plan.name.clone(),
        };
        Self::go_on_from(&saved, || {
            Self::boot(&Plan {
                disks: &[],
                name: plan.name.clone(),
                ..*plan
            })
        })
    }
}
