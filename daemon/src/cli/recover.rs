//! What every start does first, whatever else may then keep it from serving: an agent and a guardian that both died may have left file systems frozen.

use std::io;
use std::path::Path;

use hvutil_sys::memory;
use nix::sys::signal::{SigSet, SigmaskHow};

use crate::agent::single::{self, Single, SingleError};
use crate::confine;
use crate::quiesce::error::with_causes;
use crate::quiesce::ledger;
use crate::quiesce::recovery::{self, Outcome, Thaw};

/// Takes the agent's lock, and thaws by the ledger, unless another agent runs. Neither the configuration nor anything
/// else of the machine is needed; so it comes before all that can fail.
///
/// # Errors
/// Why this process may not be the agent. It has thawed all the same if no other one runs.
pub(super) fn lock_and_recover() -> Result<Single, SingleError> {
    let path = Path::new(single::DEFAULT_PATH);
    let only = Single::acquire(path);
    // Held as long as it takes, where the lock cannot be written.
    let _existing = match &only {
        Ok(_) => None,
        Err(SingleError::Running { .. }) => return only,
        // Neither a record could be read here nor anything be thawed.
        Err(SingleError::Lock { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied
                && confine::require_capabilities().is_err() =>
        {
            return only;
        }
        Err(SingleError::Lock { .. }) => match Single::acquire_existing(path) {
            Ok(existing) => existing,
            Err(_) => return only,
        },
    };
    // A thread that waits for a dead disk is there for long, and none of the process's signals is meant for it.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
    memory::share_one_heap();
    confine::raise_open_files();
    recover();
    if let Ok(mask) = mask {
        let _ = mask.thread_set_mask();
    }
    only
}

fn recover() {
    match recovery::by_ledger(Path::new(ledger::DEFAULT_PATH), true) {
        Ok(outcomes) => {
            for Outcome { name, result } in outcomes {
                match result {
                    Ok(Thaw::Thawed) => {
                        tracing::warn!("{name} was left frozen by an earlier agent: thawed")
                    }
                    Ok(Thaw::NotFrozen) => {
                        tracing::info!("{name} is on record as frozen, but is not")
                    }
                    Err(error) => tracing::error!(
                        "{name} was left frozen by an earlier agent, and cannot be thawed: {error}"
                    ),
                }
            }
        }
        Err(error) => tracing::error!("{}", with_causes(&error)),
    }
}
