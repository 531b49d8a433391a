//! Everything that can be found, by name.

use serde::{Serialize, Serializer};

/// What can be found. In JSON it is [`Cause::code`]; docs: `docs/check.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Not a guest of Hyper-V.
    NotHyperV,
    /// The kernel has no VMBus, or its driver does not run.
    NoVmbus,
    /// The host does not offer its backup service.
    ServiceOff,
    /// The kernel's driver for it is not loaded.
    DriverNotLoaded,
    /// The driver declines the host's service.
    HostTooOld,
    /// The driver's device has no node.
    NoDeviceNode,
    /// Another agent has the device.
    DeviceHeld,
    /// No agent runs.
    AgentNotRunning,
    /// The agent has not registered with the driver.
    AgentNotReady,
    /// There is no second process.
    GuardianMissing,
    /// A checkpoint is under way.
    Busy,
    /// An agent that died has left something frozen.
    LeftOver,
    /// The configuration cannot be used.
    Configuration,
    /// Nothing is frozen, by configuration.
    FlushOnly,
    /// The mount tables cannot be read.
    PlanFails,
    /// The mounts of some processes are not known.
    UnseenMounts,
    /// A writable local file system that cannot be frozen.
    CannotFreeze,
    /// Nothing can be written to it any more.
    TakesNoWrites,
    /// Writable, and no way leads to it.
    OutOfReach,
    /// Left out by configuration.
    Excluded,
    /// Processes wait for a thaw.
    FrozenAlready,
    /// Programs sleep in a write.
    SleepingWriter,
    /// A file system is busy with an operation that a freeze would wait for.
    OperationAtWork,
    /// A device takes no writes.
    DeviceSuspended,
    /// The kernel cannot count a device's suspension within a hold.
    SnapshotInHold,
    /// The kernel panics when programs wait as long as a hold may last.
    HungTaskPanic,
    /// Read-only since an error.
    ReadOnlyAfterError,
    /// On a disk that the host's image does not have.
    NotInImage,
    /// A hook that must not be run.
    HookRefused,
    /// Hooks that are there, and switched off.
    HooksDisabled,
    /// No hook at all.
    NoHooks,
}

impl Cause {
    /// All of them, in the order of the docs.
    pub const ALL: [Self; 31] = [
        Self::NotHyperV,
        Self::NoVmbus,
        Self::ServiceOff,
        Self::DriverNotLoaded,
        Self::HostTooOld,
        Self::NoDeviceNode,
        Self::DeviceHeld,
        Self::AgentNotRunning,
        Self::AgentNotReady,
        Self::GuardianMissing,
        Self::Busy,
        Self::LeftOver,
        Self::Configuration,
        Self::FlushOnly,
        Self::PlanFails,
        Self::UnseenMounts,
        Self::CannotFreeze,
        Self::TakesNoWrites,
        Self::OutOfReach,
        Self::Excluded,
        Self::FrozenAlready,
        Self::SleepingWriter,
        Self::OperationAtWork,
        Self::DeviceSuspended,
        Self::SnapshotInHold,
        Self::HungTaskPanic,
        Self::ReadOnlyAfterError,
        Self::NotInImage,
        Self::HookRefused,
        Self::HooksDisabled,
        Self::NoHooks,
    ];

    /// A stable name for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NotHyperV => "not-hyper-v",
            Self::NoVmbus => "no-vmbus",
            Self::ServiceOff => "service-off",
            Self::DriverNotLoaded => "driver-not-loaded",
            Self::HostTooOld => "host-too-old",
            Self::NoDeviceNode => "no-device-node",
            Self::DeviceHeld => "device-held",
            Self::AgentNotRunning => "agent-not-running",
            Self::AgentNotReady => "agent-not-ready",
            Self::GuardianMissing => "guardian-missing",
            Self::Busy => "busy",
            Self::LeftOver => "left-over",
            Self::Configuration => "configuration",
            Self::FlushOnly => "flush-only",
            Self::PlanFails => "plan-fails",
            Self::UnseenMounts => "unseen-mounts",
            Self::CannotFreeze => "cannot-freeze",
            Self::TakesNoWrites => "takes-no-writes",
            Self::OutOfReach => "out-of-reach",
            Self::Excluded => "excluded",
            Self::FrozenAlready => "frozen-already",
            Self::SleepingWriter => "sleeping-writer",
            Self::OperationAtWork => "operation-at-work",
            Self::DeviceSuspended => "device-suspended",
            Self::SnapshotInHold => "snapshot-in-hold",
            Self::HungTaskPanic => "hung-task-panic",
            Self::ReadOnlyAfterError => "read-only-after-error",
            Self::NotInImage => "not-in-image",
            Self::HookRefused => "hook-refused",
            Self::HooksDisabled => "hooks-disabled",
            Self::NoHooks => "no-hooks",
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}
