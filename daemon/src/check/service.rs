//! Who serves the host: another agent, ours, its guardian, its configuration and hooks. Pure.

use super::facts::{Agent, Facts, Guardian};
use super::{Cause, Finding, Severity};

const C_DAEMON: &str = "hv_vss_daemon";

pub(super) fn look(facts: &Facts, findings: &mut Vec<Finding>) {
    configuration(facts, findings);
    let own = facts.agent.as_ref().map(|agent| agent.pid);
    for holder in &facts.holders {
        if Some(holder.pid) == own {
            continue;
        }
        let (what, remedy) = match holder.name.as_str() {
            // The kernel keeps 15 characters of a name.
            name if C_DAEMON.starts_with(name) && !name.is_empty() => (
                format!(
                    "Process {} is {C_DAEMON}, the daemon of the kernel's tools, and serves the host.",
                    holder.pid
                ),
                "Stop and disable it (its unit is hv-vss-daemon, hypervvssd or hv_vss_daemon), then: systemctl enable --now hv-vssd.service",
            ),
            _ => (
                format!("{holder} holds /dev/vmbus/hv_vss, and only one process can."),
                "Find out what it is and stop it, then: systemctl restart hv-vssd.service",
            ),
        };
        findings.push(Finding::new(
            Cause::DeviceHeld,
            Severity::Error,
            what,
            remedy,
        ));
    }
    let held = findings
        .iter()
        .any(|finding| finding.code == Cause::DeviceHeld);
    // Without the device there is nothing that an agent could do.
    let can_serve = facts.machine.is_hyper_v() && facts.machine.device && facts.machine.node;
    match &facts.agent {
        Some(agent) => running(agent, can_serve && !held, findings),
        None if can_serve && !held => findings.push(Finding::new(
            Cause::AgentNotRunning,
            Severity::Error,
            "hv-vssd does not run.",
            "systemctl enable --now hv-vssd.service; if it ends again, journalctl -u hv-vssd says why",
        )),
        None => {}
    }
    ledger(facts, findings);
    hooks(facts, findings);
}

fn running(agent: &Agent, can_serve: bool, findings: &mut Vec<Finding>) {
    if let Some(halted) = &agent.halted {
        findings.push(Finding::new(
            Cause::AgentNotReady,
            Severity::Error,
            format!("It does not answer: {halted}."),
            format!("Whoever did that has it go on: {}", halted.remedy()),
        ));
    } else if let Some(why) = &agent.silent {
        findings.push(Finding::new(
            Cause::AgentNotReady,
            Severity::Error,
            format!(
                "The agent, process {}, cannot be asked: {}.",
                agent.pid,
                why.trim_end_matches('.')
            ),
            "If it has only just started, ask again; else: systemctl restart hv-vssd.service",
        ));
    } else if !agent.registered && can_serve {
        findings.push(Finding::new(
            Cause::AgentNotReady,
            Severity::Error,
            format!(
                "The agent, process {}, is not registered with the driver yet.",
                agent.pid
            ),
            "It tries every few seconds: ask again; if it stays so, journalctl -u hv-vssd says why",
        ));
    }
    if agent.guardian == Guardian::Missing {
        findings.push(Finding::new(
            Cause::GuardianMissing,
            Severity::Error,
            "The agent has no guardian, the process that thaws should it die: nothing is frozen without one.",
            "The next request of the host starts another; if it cannot, journalctl -u hv-vssd says why: systemctl restart hv-vssd.service",
        ));
    }
    if agent.busy {
        findings.push(Finding::new(
            Cause::Busy,
            Severity::Note,
            "A checkpoint is under way.",
            "",
        ));
    }
}

fn configuration(facts: &Facts, findings: &mut Vec<Finding>) {
    if let Some(error) = &facts.settings.error {
        findings.push(Finding::new(
            Cause::Configuration,
            Severity::Error,
            format!(
                "The configuration cannot be used, and the service would not start with it: {error}"
            ),
            "Correct it; 'hv-vssd config --check' lists all that is wrong",
        ));
    }
    if facts.settings.flush_only {
        findings.push(Finding::new(
            Cause::FlushOnly,
            Severity::Warning,
            "The configuration says strictness = \"flush-only\": nothing is frozen, and the image is as after a power cut.",
            "Remove the line unless that is what you want",
        ));
    }
}

fn ledger(facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.in_ledger.is_empty() {
        return;
    }
    let names = facts.in_ledger.join(", ");
    match &facts.agent {
        // It is at work, or cannot thaw: it knows, and the log says so.
        Some(_) => {
            if !findings.iter().any(|finding| finding.code == Cause::Busy) {
                findings.push(Finding::new(
                    Cause::Busy,
                    Severity::Note,
                    format!("The ledger has on record as frozen or being frozen: {names}."),
                    "",
                ));
            }
        }
        None => findings.push(Finding::new(
            Cause::LeftOver,
            Severity::Error,
            format!("An agent that died has left frozen: {names}."),
            "hv-vssd thaw; the service does the same when it starts",
        )),
    }
}

fn hooks(facts: &Facts, findings: &mut Vec<Finding>) {
    let hooks = &facts.hooks;
    if !facts.settings.hooks_enabled {
        if !hooks.accepted.is_empty() {
            findings.push(Finding::new(
                Cause::HooksDisabled,
                Severity::Warning,
                format!(
                    "Hooks are switched off by the configuration: {}.",
                    hooks.accepted.join(", ")
                ),
                "Set enabled = true in [hooks] if applications are to be brought to rest",
            ));
        }
        return;
    }
    for (path, why, fails) in &hooks.refused {
        let (severity, what) = match fails {
            true => (Severity::Error, "FREEZE fails"),
            false => (Severity::Warning, "it is left out"),
        };
        // The reason ends in what is to be done.
        let (why, remedy) = why
            .rsplit_once(": ")
            .unwrap_or((why, "repair or remove it"));
        findings.push(Finding::new(
            Cause::HookRefused,
            severity,
            format!("The hook {path} is not run, and {what}: {why}."),
            remedy.trim_matches('\''),
        ));
    }
    if hooks.accepted.is_empty() && hooks.refused.is_empty() && !facts.settings.flush_only {
        findings.push(Finding::new(
            Cause::NoHooks,
            Severity::Note,
            "There are no hooks: applications are not told, and databases recover as after a power cut.",
            "See docs/hooks.md for databases that are to be brought to rest",
        ));
    }
}
