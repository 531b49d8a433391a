//! The way to the host: hypervisor, bus, service, driver, device. The first thing that is missing tells why the others are. Pure.

use super::facts::Facts;
use super::{Cause, Finding, Severity};

pub(super) fn look(facts: &Facts, findings: &mut Vec<Finding>) {
    let machine = &facts.machine;
    let error = |cause, finding: &str, remedy: &str| {
        Some(Finding::new(cause, Severity::Error, finding, remedy))
    };
    let missing = if !machine.is_hyper_v() {
        let named = match (&machine.hypervisor, &machine.firmware) {
            (Some(name), _) => {
                format!("This machine runs under another hypervisor ({name}), not under Hyper-V.")
            }
            (None, Some((vendor, product))) => {
                format!("This machine ({vendor} {product}) is not a guest of Hyper-V.")
            }
            (None, None) => "This machine is not a guest of Hyper-V.".to_owned(),
        };
        error(
            Cause::NotHyperV,
            &named,
            "Nothing need be done: hv-vssd has no host to serve here; remove the package, or leave it, it costs nothing.",
        )
    } else if !machine.bus || machine.services == 0 {
        error(
            Cause::NoVmbus,
            "The kernel does not see Hyper-V's VMBus: its driver hv_vmbus does not run.",
            "Load it (modprobe hv_vmbus); a kernel without it needs the distribution's package of further modules.",
        )
    } else if !machine.vss {
        error(
            Cause::ServiceOff,
            "The host does not offer its backup service to this virtual machine.",
            "Switch it on in the machine's settings, Integration Services, Backup (volume shadow copy), or on the host with: Enable-VMIntegrationService -VMName NAME -Name VSS",
        )
    } else if !machine.driver {
        error(
            Cause::DriverNotLoaded,
            "The host offers its backup service, but the kernel's driver for it, hv_utils, is not loaded.",
            "Load it (modprobe hv_utils); if there is none, install the distribution's package of further modules for this kernel.",
        )
    } else if !machine.device {
        error(
            Cause::HostTooOld,
            "The kernel's driver declines the host's backup service: the host is older than Windows Server 2012 R2, or the kernel older than Linux 4.2.",
            "Move the machine to a newer host; 'dmesg | grep -i hv_' shows what the driver says.",
        )
    } else if !machine.node {
        error(
            Cause::NoDeviceNode,
            "The driver has its device, but /dev/vmbus/hv_vss does not exist.",
            "Have udev make it (udevadm trigger --subsystem-match=misc); without udev see that /dev is a devtmpfs.",
        )
    } else {
        None
    };
    findings.extend(missing);
}
