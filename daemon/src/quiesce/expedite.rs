//! Shorter grace periods while file systems are frozen.
//!
//! `FIFREEZE` waits for three RCU grace periods (`sb_wait_write` in fs/super.c, `percpu_down_write`), some 10 ms each,
//! while writers already sleep. `/sys/kernel/rcu_expedited` (Documentation/admin-guide/kernel-parameters.txt,
//! `rcupdate.rcu_expedited`) makes them a few hundred microseconds, at the price of interrupting every CPU. So it is
//! set from the first `FIFREEZE` to the last one's return, and never longer.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

/// The kernel's switch.
const PATH: &str = "/sys/kernel/rcu_expedited";

/// The switch, open from before the first freeze: nothing may be opened later.
#[derive(Debug)]
pub struct Expedite {
    file: File,
}

impl Expedite {
    /// Opens the switch; `None` on a kernel without one, or without the right to it.
    #[must_use]
    pub fn open() -> Option<Self> {
        let file = OpenOptions::new().read(true).write(true).open(PATH).ok()?;
        Some(Self { file })
    }

    /// Whether it is on.
    #[must_use]
    pub fn is_on(&self) -> Option<bool> {
        let mut value = [0];
        self.file.read_exact_at(&mut value, 0).ok()?;
        Some(value != *b"0")
    }

    /// Switches it. A kernel that refuses is only slower.
    pub fn set(&self, on: bool) {
        let _ = self.file.write_at(if on { b"1" } else { b"0" }, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switch_is_what_it_was_after_it_was_used() {
        // Only root has it; there is none in some containers.
        let Some(expedite) = Expedite::open() else {
            return;
        };
        let before = expedite.is_on();
        assert!(before.is_some());
        if before == Some(false) {
            expedite.set(true);
            assert_eq!(expedite.is_on(), Some(true));
            expedite.set(false);
        }
        assert_eq!(expedite.is_on(), before);
    }
}
