//! What a look at the mount tables of other namespaces may cost: how long they are is for those to say whose they are.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::processes::Process;

/// To whom a mount namespace belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Owner {
    /// To our own user namespace: whoever mounts there has CAP_SYS_ADMIN, and can mount disks.
    System,
    /// To a user namespace that this user has made, or one within. No disk can be mounted there but by the system.
    User(u32),
}

/// What reading tables may cost at one look. The time is for a kernel that is slow at it; mostly bytes and number come first.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Of all tables together.
    bytes: usize,
    namespaces: usize,
    time: Duration,
}

/// Of the system's namespaces: a thousand containers, or a hundred services with ten thousand mounts each.
const SYSTEM: Limits = Limits {
    bytes: 192 << 20,
    namespaces: 20_000,
    time: Duration::from_secs(8),
};

/// Of those of one user: some hundred rootless containers.
const USER: Limits = Limits {
    bytes: 4 << 20,
    namespaces: 500,
    time: Duration::from_secs(2),
};

/// Of those of all users together.
const USERS: Limits = Limits {
    bytes: 32 << 20,
    namespaces: 4_000,
    time: Duration::from_secs(4),
};

/// What was spent so far.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    system: Spent,
    users: Spent,
    by_user: HashMap<u32, Spent>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Spent {
    bytes: usize,
    namespaces: usize,
    time: Duration,
}

/// How much of one table may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) bytes: usize,
    pub(crate) until: Instant,
}

impl Budget {
    /// For the next table of this owner; `None` when nothing is left.
    pub(crate) fn grant(&self, owner: Owner) -> Option<Grant> {
        let (bytes, time) = match owner {
            Owner::System => self.system.left(SYSTEM)?,
            Owner::User(uid) => {
                let own = self.by_user.get(&uid).copied().unwrap_or_default();
                let (own, all) = (own.left(USER)?, self.users.left(USERS)?);
                (own.0.min(all.0), own.1.min(all.1))
            }
        };
        Some(Grant {
            bytes,
            until: Instant::now() + time,
        })
    }

    /// A table of this owner was looked at since `started`.
    pub(crate) fn spend(&mut self, owner: Owner, bytes: usize, started: Instant) {
        let took = started.elapsed();
        match owner {
            Owner::System => self.system.add(bytes, took),
            Owner::User(uid) => {
                self.users.add(bytes, took);
                self.by_user.entry(uid).or_default().add(bytes, took);
            }
        }
    }
}

impl Spent {
    fn left(self, limits: Limits) -> Option<(usize, Duration)> {
        let bytes = limits
            .bytes
            .checked_sub(self.bytes)
            .filter(|left| *left > 0)?;
        let time = limits
            .time
            .checked_sub(self.time)
            .filter(|left| !left.is_zero())?;
        (self.namespaces < limits.namespaces).then_some((bytes, time))
    }

    fn add(&mut self, bytes: usize, took: Duration) {
        self.bytes += bytes;
        self.time += took;
        self.namespaces += 1;
    }
}

/// Mount tables of one owner that were not read to their end: a file system mounted only there may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadTables {
    /// The user whose namespaces these are; `None`: they are the system's own.
    pub uid: Option<u32>,
    /// How many.
    pub namespaces: usize,
    /// A process in the first of them.
    pub process: Process,
}

impl fmt::Display for UnreadTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(
                f,
                "the mount tables of user {uid} are too many or too long: "
            )?,
            None => f.write_str(
                "the mount tables of the system's namespaces are too many or too long: ",
            )?,
        }
        match self.namespaces {
            1 => write!(f, "that of {} was not read to its end", self.process),
            many => write!(
                f,
                "{many} were not read to their end, the first that of {}",
                self.process
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_users_tables_do_not_use_up_what_others_have() {
        let mut budget = Budget::default();
        let now = Instant::now();
        assert_eq!(
            budget.grant(Owner::User(1)).map(|grant| grant.bytes),
            Some(USER.bytes)
        );
        budget.spend(Owner::User(1), USER.bytes, now);
        assert_eq!(budget.grant(Owner::User(1)), None);
        assert_eq!(
            budget.grant(Owner::User(2)).map(|grant| grant.bytes),
            Some(USER.bytes)
        );
        assert_eq!(
            budget.grant(Owner::System).map(|grant| grant.bytes),
            Some(SYSTEM.bytes)
        );
    }

    #[test]
    fn all_users_together_have_a_limit_too_and_the_system_its_own() {
        let mut budget = Budget::default();
        for uid in 0..8 {
            budget.spend(Owner::User(uid), USERS.bytes / 8, Instant::now());
        }
        assert_eq!(budget.grant(Owner::User(100)), None);
        assert!(budget.grant(Owner::System).is_some());
    }

    #[test]
    fn time_and_the_number_of_namespaces_are_limited() {
        let mut budget = Budget::default();
        for _ in 0..USER.namespaces {
            assert!(budget.grant(Owner::User(1)).is_some());
            budget.spend(Owner::User(1), 1, Instant::now());
        }
        assert_eq!(budget.grant(Owner::User(1)), None);
        let long_ago = Instant::now().checked_sub(SYSTEM.time).unwrap();
        budget.spend(Owner::System, 1, long_ago);
        assert_eq!(budget.grant(Owner::System), None);
    }
}
