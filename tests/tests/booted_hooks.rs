//! Hooks under systemd: each in a unit of its own, and whatever happens to the checkpoint, all of them get their thaw.

use std::time::Duration;

use tests::agent::Agent;
use tests::booted::{self, System};
use tests::error::{Failure, Step};
use tests::faults::{answer, begin, fails};
use tests::guest::{Guest, poll_until};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{checkpoint, frozen, succeeds, writable};
use tests::{promise, scenario};

/// For what systemd and the agent do, on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// On the frozen file systems.
const WRITTEN: [&str; 2] = ["/var/tmp", "/srv"];

const NO_HOOKS: Option<&str> = Some("has no hooks: nothing tells applications of a checkpoint");

/// Notes each call in /run/calls, and leaves a process behind as one that holds a lock does. `$mode` says what else it does.
const HOOK: &str = r#"#!/bin/sh
name=${0##*/}
mode=$(cat /run/mode-$name 2>/dev/null)
case $1 in
freeze)
    echo "$name freeze" >>/run/calls
    sleep 1000 >/dev/null 2>&1 &
    echo $! >/run/left-$name
    ;;
thaw)
    kill -0 "$(cat /run/left-$name)" && held=held || held=gone
    echo "$name thaw $HV_VSSD_OUTCOME $held" >>/run/calls
    ;;
esac
case $1-$mode in
freeze-hang) trap '' TERM; while :; do sleep 1; done ;;
freeze-fail) exit 3 ;;
freeze-flood) head -c 5000000 /dev/zero | tr '\0' x; echo; echo flooded ;;
freeze-look)
    cat /proc/self/cgroup
    grep CapEff /proc/self/status
    runuser -u nobody -- id -un
    touch /var/tmp/"$name" && findmnt -no OPTIONS /sys/fs/cgroup
    ;;
esac
exit 0
"#;

fn ready(bed: &mut Bed) -> Step<Guest> {
    let guest = bed.boot_system(&System::new())?;
    guest.sh("mkdir -p /etc/hv-vssd/hooks.d /usr/lib/hv-vssd/hooks.d")?;
    for path in ["/etc/hv-vssd/hooks.d/20-b", "/usr/lib/hv-vssd/hooks.d/10-a"] {
        guest.write(path, HOOK)?;
        guest.sh(&format!("chmod 755 {path}"))?;
    }
    // Masked: it must never be called.
    guest.sh("cp -p /etc/hv-vssd/hooks.d/20-b /usr/lib/hv-vssd/hooks.d/15-m; ln -s /dev/null /etc/hv-vssd/hooks.d/15-m")?;
    configure(&guest, "[hooks]\nlimit = 60\n")?;
    Ok(guest)
}

/// The agent comes back with this configuration.
fn configure(guest: &Guest, text: &str) -> Step<()> {
    guest.write("/etc/hv-vssd/config.toml", text)?;
    guest.sh("systemctl restart hv-vssd 2>/dev/null || systemctl restart hv-vss-daemon")?;
    Ok(())
}

fn mode(guest: &Guest, name: &str, mode: &str) -> Step<()> {
    Ok(guest.write(&format!("/run/mode-{name}"), mode)?)
}

fn calls(guest: &Guest) -> Step<Vec<String>> {
    let calls = guest.sh("cat /run/calls 2>/dev/null || true")?;
    Ok(calls.lines().map(ToOwned::to_owned).collect())
}

/// Waits until these calls, and no others, were made since the last time, and what they left behind has gone.
fn called(guest: &Guest, expected: &[&str]) -> Step<()> {
    let found = poll_until(SOON, || {
        let calls = calls(guest)?;
        Ok::<_, Failure>((calls.len() >= expected.len()).then_some(()))
    })?;
    let calls = calls(guest)?;
    promise!(
        found.is_some() && calls == expected,
        "hooks were called {calls:?} and not {expected:?}"
    );
    let mut left = String::new();
    let clean = poll_until(SOON, || {
        left = guest.sh(
            "pgrep -x -a sleep || true; ls /run/hv-vssd/hooks 2>/dev/null || true; \
             systemctl list-units --all --plain --no-legend 'hv-vssd-hook-*'",
        )?;
        Ok::<_, Failure>(left.trim().is_empty().then_some(()))
    })?;
    promise!(clean.is_some(), "left behind: {left}");
    guest.sh("rm -f /run/calls /run/mode-*")?;
    Ok(())
}

const WHOLE: [&str; 4] = [
    "10-a freeze",
    "20-b freeze",
    "20-b thaw success held",
    "10-a thaw success held",
];

/// After a checkpoint that failed in its hold.
const BROKEN: [&str; 4] = [
    "10-a freeze",
    "20-b freeze",
    "20-b thaw failure held",
    "10-a thaw failure held",
];

scenario! {
    row: "24", "hooks in a booted Debian: in order, outside the agent's sandbox; hang, fail, flood, must not be run, linked from below a user's directory",
    c_daemon_gap: NO_HOOKS,
    fn hooks_run_in_units_of_their_own_and_bound_in_time(bed) {
        let mut guest = ready(bed)?;
        bed.agent.wait_registered(&mut guest)?;
        mode(&guest, "20-b", "look")?;
        checkpoint(&mut guest)?;
        called(&guest, &WHOLE)?;
        let log = booted::journal(&guest, bed.agent)?;
        for (sign, what) in [
            ("/hv-vssd-hook-freeze-20-b-", "in no unit of its own"),
            ("CapEff:\t000001ffffffffff", "without root's capabilities"),
            ("20-b freeze: nobody", "unable to become another user"),
        ] {
            promise!(log.contains(sign), "the hook is {what}: {log}");
        }
        mode(&guest, "10-a", "flood")?;
        checkpoint(&mut guest)?;
        called(&guest, &WHOLE)?;
        let log = booted::journal(&guest, bed.agent)?;
        promise!(
            log.contains("10-a freeze: flooded") && log.len() < 100_000,
            "a flood of output is not bounded, or its end is lost"
        );
        for (how, sign) in [("hang", "was not done within 3 s"), ("fail", "exit status 3")] {
            if how == "hang" {
                configure(&guest, "[hooks]\nlimit = 60\nby_name.\"10-a\".limit = 3\n")?;
                bed.agent.wait_registered(&mut guest)?;
            }
            mode(&guest, "10-a", how)?;
            fails(&mut guest, Operation::FREEZE, SOON)?;
            writable(&guest, &WRITTEN)?;
            called(&guest, &["10-a freeze", "10-a thaw failure gone"])?;
            let log = booted::journal(&guest, bed.agent)?;
            promise!(log.contains(sign), "the log does not say {sign:?}: {log}");
        }
        guest.sh("chmod 777 /etc/hv-vssd/hooks.d/20-b")?;
        fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        fails(&mut guest, Operation::FREEZE, SOON)?;
        called(&guest, &[])?;
        let log = booted::journal(&guest, bed.agent)?;
        promise!(
            log.contains("chmod go-w /etc/hv-vssd/hooks.d/20-b"),
            "the log has no remedy: {log}"
        );
        guest.sh("chmod 755 /etc/hv-vssd/hooks.d/20-b")?;
        // File and directory are root's; whoever has what lies above could put another directory there.
        guest.sh(
            "mkdir -p /home/app/tools; cp -p /etc/hv-vssd/hooks.d/20-b /home/app/tools/c; chown nobody /home/app; \
             ln -s /home/app/tools/c /etc/hv-vssd/hooks.d/30-c",
        )?;
        fails(&mut guest, Operation::HOT_BACKUP, SOON)?;
        fails(&mut guest, Operation::FREEZE, SOON)?;
        called(&guest, &[])?;
        let why = "/home/app, which leads to it, belongs to user 65534";
        let checked = guest.exec(&["/usr/sbin/hv-vssd", "check"], SOON)?.stdout;
        let checked = checked.split_whitespace().collect::<Vec<_>>().join(" ");
        for (who, said) in [("the log", booted::journal(&guest, bed.agent)?), ("hv-vssd check", checked)] {
            promise!(said.contains(why), "{who} does not say why: {said}");
        }
        guest.sh("chown root /home/app")?;
        checkpoint(&mut guest)?;
        let whole = ["10-a freeze", "20-b freeze", "30-c freeze", "30-c thaw success held", "20-b thaw success held", "10-a thaw success held"];
        called(&guest, &whole)?;
        guest.sh("rm /etc/hv-vssd/hooks.d/30-c")?;
        checkpoint(&mut guest)?;
        called(&guest, &WHOLE)?;
        let failed = booted::failed_units(&guest)?;
        promise!(failed.is_empty(), "failed units: {}", failed.join(", "));
        Ok("order, units, rights, flood, hang, failure and refusal as promised; 3 of 3 bad hooks fail FREEZE in bounded time".into())
    }
}

scenario! {
    row: "24", "hooks get their thaw after SIGKILL, SIGTERM, the hold limit, and a file system frozen by someone else",
    c_daemon_gap: NO_HOOKS,
    fn hooks_get_their_thaw_whatever_happens(bed) {
        let mut guest = ready(bed)?;
        bed.agent.wait_registered(&mut guest)?;
        checkpoint(&mut guest)?;
        called(&guest, &WHOLE)?;

        succeeds(&mut guest, Operation::FREEZE)?;
        frozen(&guest, &WRITTEN)?;
        let pid = booted::property(&guest, booted::unit(bed.agent), "MainPID")?;
        guest.sh(&format!("kill -9 {pid}"))?;
        called(&guest, &BROKEN)?;
        writable(&guest, &WRITTEN)?;
        bed.agent.wait_registered(&mut guest)?;

        // Killed with its guardian while a hook is at work.
        mode(&guest, "20-b", "hang")?;
        begin(&mut guest, Operation::FREEZE)?;
        let at_work = poll_until(SOON, || {
            Ok::<_, Failure>((calls(&guest)?.len() == 2).then_some(()))
        })?;
        promise!(at_work.is_some(), "the second hook was not called");
        guest.sh("systemctl kill --signal=KILL hv-vssd")?;
        called(&guest, &["10-a freeze", "20-b freeze", "20-b thaw failure gone", "10-a thaw failure held"])?;
        bed.agent.wait_registered(&mut guest)?;

        succeeds(&mut guest, Operation::FREEZE)?;
        guest.sh("systemctl stop hv-vssd")?;
        called(&guest, &BROKEN)?;
        writable(&guest, &WRITTEN)?;

        configure(&guest, "limits.hold = 2\n[hooks]\nlimit = 60\n")?;
        bed.agent.wait_registered(&mut guest)?;
        succeeds(&mut guest, Operation::FREEZE)?;
        called(&guest, &BROKEN)?;
        writable(&guest, &WRITTEN)?;
        fails(&mut guest, Operation::THAW, SOON)?;

        guest.sh("fsfreeze -f /srv")?;
        let asked = begin(&mut guest, Operation::FREEZE)?;
        let status = answer(&mut guest, asked, SOON)?;
        guest.sh("true")?;
        promise!(status != 0, "FREEZE succeeded although /srv was frozen by someone else");
        called(&guest, &BROKEN)?;
        frozen(&guest, &["/srv"])?;
        guest.sh("fsfreeze -u /srv")?;
        checkpoint(&mut guest)?;
        called(&guest, &WHOLE)?;
        Ok("thaw after SIGKILL in the hold and in a hook, SIGTERM, the hold limit, a foreign freeze; nothing left behind".into())
    }
}

scenario! {
    row: "22", "hooks enabled and no VSS service: nothing is called, nothing fails",
    c_daemon_gap: None,
    fn without_the_service_no_hook_is_called(bed) {
        let setup = "mkdir -p /etc/hv-vssd/hooks.d; printf '#!/bin/sh\\necho \"$1\" >>/run/calls\\n' >/etc/hv-vssd/hooks.d/10-a; \
                     chmod 755 /etc/hv-vssd/hooks.d/10-a";
        let guest = bed.boot_system(&System::new().unplugged().setup(setup))?;
        let state = booted::property(&guest, booted::unit(bed.agent), "ActiveState")?;
        promise!(state == "inactive", "{} is {state}", booted::unit(bed.agent));
        promise!(calls(&guest)?.is_empty(), "a hook was called");
        if bed.agent == Agent::HvVssd {
            guest.sh("hv-vssd thaw")?;
            promise!(calls(&guest)?.is_empty(), "'hv-vssd thaw' called a hook that owes nothing");
        }
        Ok("the unit is inactive, none has failed, no hook was called".into())
    }
}
