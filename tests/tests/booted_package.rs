//! The Debian package on a system that runs: installed, upgraded and removed by dpkg, while a host takes checkpoints.

use std::time::Duration;

use tests::agent::Agent;
use tests::booted::{self, System, WRITTEN};
use tests::error::{Failure, Step};
use tests::guest::{Guest, poll_until};
use tests::held::{self, ends_a_hold, holds_a_command, leaves_a_hold};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, succeeds, writable};
use tests::{faults, package, promise, scenario};

/// What dpkg and systemd do soon they do within this time, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

const UNIT: &str = "hv-vssd.service";

/// What Microsoft's checks and backup products ask for.
const NAMES: [&str; 3] = ["hv-vss-daemon", "hypervvssd", "hv_vss_daemon"];

/// The daemons for key-value pairs and file copy. This host offers neither service, and their units go with its devices:
/// stand-ins run under their names.
const OTHERS: [&str; 2] = ["hv-kvp-daemon.service", "hv-fcopy-daemon.service"];

/// The package of a revision, in the guest.
fn deb(revision: u32) -> String {
    format!("/root/hv-vssd-{revision}.deb")
}

fn install(revision: u32) -> String {
    format!("dpkg --install {}", deb(revision))
}

/// A system that has these revisions at hand.
fn with_packages(mut system: System<'static>, revisions: &[u32]) -> Step<System<'static>> {
    for revision in revisions {
        system = system.file(&package::deb(*revision)?, &deb(*revision));
    }
    Ok(system)
}

fn main_pid(guest: &Guest) -> Step<String> {
    booted::property(guest, UNIT, "MainPID")
}

/// Another process has taken the place of `old`, and runs the program that is installed now.
fn replaced(bed: &Bed, guest: &mut Guest, old: &str) -> Step<()> {
    let new = poll_until(SOON, || {
        let pid = main_pid(guest)?;
        let new = pid != "0" && pid != old;
        Ok::<_, Failure>(new.then_some(pid))
    })?;
    let new = new.ok_or_else(|| Failure::Promise(format!("the agent is still process {old}")))?;
    bed.agent.wait_registered(guest)?;
    let program = guest.sh(&format!("readlink /proc/{new}/exe"))?;
    promise!(
        program.trim() == "/usr/sbin/hv-vssd",
        "the agent runs {program}"
    );
    Ok(())
}

fn installed_version(guest: &Guest) -> Step<String> {
    Ok(guest.sh("dpkg-query -W -f '${db:Status-Status} ${Version}' hv-vssd")?)
}

/// Active under every name that is asked for.
fn active_under_all_names(guest: &Guest) -> Step<()> {
    let said = guest.sh(&format!("systemctl is-active {} || true", NAMES.join(" ")))?;
    promise!(said == "active\n".repeat(3), "of {NAMES:?}: {said}");
    Ok(())
}

/// An upgrade leaves off what the administrator has switched off.
fn stays_off(guest: &Guest, revision: u32, state: &str) -> Step<()> {
    booted::run(guest, &install(revision))?;
    let said = guest.sh(&format!("systemctl is-enabled {UNIT} || true"))?;
    promise!(
        said.trim() == state,
        "{state} before the upgrade, then {said}"
    );
    let active = booted::property(guest, UNIT, "ActiveState")?;
    promise!(
        active == "inactive",
        "{state}, and {active} after the upgrade"
    );
    Ok(())
}

scenario! {
    /// Row 26.
    row: "26", "dpkg --install on a booted Debian that the C daemon serves; an upgrade with a FREEZE in the middle; upgrades with the service disabled and masked",
    hv_vssd_alone,
    fn the_package_takes_over_and_an_upgrade_fails_no_backup(bed) {
        let mut setup = String::new();
        for name in OTHERS {
            setup.push_str(&format!(
                "printf '[Service]\\nExecStart=/bin/sleep infinity\\n' > /etc/systemd/system/{name}\n"
            ));
        }
        let system = with_packages(System::new().without_hv_vssd().setup(&setup), &package::REVISIONS)?;
        let mut guest = bed.boot_system(&system)?;
        Agent::CDaemon.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let mut others = Vec::new();
        for name in OTHERS {
            guest.sh(&format!("systemctl start {name}"))?;
            others.push(booted::property(&guest, name, "MainPID")?);
        }

        booted::run(&guest, &install(1))?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        let left = guest.sh("pidof hv_vss_daemon || true")?;
        promise!(left.is_empty(), "the C daemon still runs: {left}");
        active_under_all_names(&guest)?;
        for (name, pid) in OTHERS.iter().zip(&others) {
            let now = booted::property(&guest, name, "MainPID")?;
            promise!(now == *pid, "{name}: process {pid} became {now}");
        }
        booted::nothing_failed(&guest)?;

        let old = main_pid(&guest)?;
        holds_a_command(&mut guest, &install(2))?;
        let version = installed_version(&guest)?;
        promise!(version == format!("installed {}", package::version(2)), "after the upgrade: {version}");
        replaced(bed, &mut guest, &old)?;
        checkpoint(&mut guest)?;
        active_under_all_names(&guest)?;
        booted::nothing_failed(&guest)?;

        booted::run(&guest, &format!("systemctl disable --now {UNIT}"))?;
        stays_off(&guest, 2, "disabled")?;
        booted::run(&guest, &format!("systemctl mask {UNIT}"))?;
        stays_off(&guest, 2, "masked")?;
        booted::run(&guest, &format!("systemctl unmask {UNIT}; systemctl enable --now {UNIT}"))?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        Ok("took over, active under all three names, its neighbours untouched; the upgrade slept in the hold, all statuses 0, then the new program; stayed off where it was off".into())
    }
}

/// Agent and guardian die in a hold, and nobody starts another.
fn dies_in_a_hold(guest: &mut Guest) -> Step<()> {
    let drop_in = format!("/run/systemd/system/{UNIT}.d");
    guest.sh(&format!(
        "mkdir -p {drop_in}; printf '[Service]\\nRestart=no\\nExecStopPost=\\n' > {drop_in}/stay-dead.conf; systemctl daemon-reload"
    ))?;
    succeeds(guest, Operation::FREEZE)?;
    guest.sh(&format!(
        "systemctl kill --signal=STOP {UNIT}; systemctl kill --signal=KILL {UNIT}; rm -r {drop_in}"
    ))?;
    let dead = poll_until(SOON, || {
        let state = booted::property(guest, UNIT, "ActiveState")?;
        Ok::<_, Failure>((state == "failed").then_some(()))
    })?;
    promise!(dead.is_some(), "the service lives on");
    frozen(guest, &WRITTEN)
}

/// Starts the service again after a step that stopped it for the sake of a removal.
fn comes_back(bed: &Bed, guest: &mut Guest) -> Step<()> {
    booted::run(
        guest,
        &format!(
            "systemctl daemon-reload; systemctl reset-failed {UNIT} || true; systemctl start {UNIT}"
        ),
    )?;
    bed.agent.wait_registered(guest)?;
    checkpoint(guest)
}

scenario! {
    /// Row 26, with the scripts called in a hold as dpkg calls them: dpkg itself would sleep on the frozen `/` first.
    row: "26", "in a hold of a booted Debian: the package's postinst of an upgrade, SIGUSR1, its prerm of a removal, also with agent and guardian dead; then dpkg --remove and --purge",
    hv_vssd_alone,
    fn a_removal_thaws_and_leaves_nothing_behind(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        for command in [
            "DPKG_MAINTSCRIPT_NAME=postinst DPKG_MAINTSCRIPT_PACKAGE=hv-vssd \
                /var/lib/dpkg/info/hv-vssd.postinst configure 0.1.0-1".to_owned(),
            format!("systemctl kill --kill-whom=main --signal=USR1 {UNIT}"),
        ] {
            let old = main_pid(&guest)?;
            leaves_a_hold(&mut guest, &command)?;
            replaced(bed, &mut guest, &old)?;
            checkpoint(&mut guest)?;
        }
        booted::nothing_failed(&guest)?;

        let prerm = "DPKG_MAINTSCRIPT_NAME=prerm DPKG_MAINTSCRIPT_PACKAGE=hv-vssd \
            /var/lib/dpkg/info/hv-vssd.prerm remove";
        let took = ends_a_hold(&mut guest, prerm)?;
        bed.measured("removal in a hold", took);
        comes_back(bed, &mut guest)?;

        dies_in_a_hold(&mut guest)?;
        guest.sh(prerm)?;
        writable(&guest, &WRITTEN)?;
        faults::fails(&mut guest, Operation::THAW, held::SOON)?;
        comes_back(bed, &mut guest)?;

        booted::run(&guest, "dpkg --remove hv-vssd")?;
        let state = installed_version(&guest)?;
        promise!(state.starts_with("config-files "), "after the removal: {state}");
        let [name, ..] = NAMES;
        let unit = booted::property(&guest, name, "FragmentPath")?;
        promise!(unit.ends_with("/hv-vss-daemon.service"), "the C daemon's name stands for {unit:?}");
        Agent::CDaemon.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        booted::run(&guest, "dpkg --purge hv-vssd")?;
        let left = guest.sh("find / -xdev -iname '*hv*vssd*'; find /run -iname '*hv*vssd*'")?;
        promise!(left.is_empty(), "left behind: {left}");
        checkpoint(&mut guest)?;
        booted::nothing_failed(&guest)?;
        Ok(format!(
            "frozen until THAW in an upgrade, then replaced; removed in a hold: writable after {:.1} s; thawed by the ledger with both dead; nothing left, and the C daemon serves",
            took.as_secs_f64()
        ))
    }
}
