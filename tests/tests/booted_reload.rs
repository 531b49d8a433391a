//! `systemctl reload` on a booted Debian: within the unit's sandbox, with a configuration that can be used and one that cannot.

use tests::booted::{self, System};
use tests::steps::checkpoint;
use tests::{promise, scenario};

const DROP_IN: &str = "/etc/hv-vssd/config.toml.d/10-site.toml";

scenario! {
    row: "", "a booted Debian, systemctl reload: with a drop-in, with a mistake in it, with the mistake mended",
    hv_vssd_alone,
    fn systemctl_reload_takes_a_configuration_or_says_what_is_wrong(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let pid = guest.sh("systemctl show -P MainPID hv-vssd.service")?;
        guest.sh("mkdir -p /etc/hv-vssd/config.toml.d")?;
        let told = |guest: &tests::guest::Guest, what: &str| {
            let wait = format!(
                "for i in $(seq 100); do journalctl -u hv-vssd.service | grep -c '{what}' && exit 0; sleep 0.1; done; exit 1"
            );
            guest.sh(&wait)
        };

        guest.write(DROP_IN, "limits.hold = 77\n")?;
        guest.sh("systemctl reload hv-vssd.service")?;
        told(&guest, "the configuration was read again")?;
        checkpoint(&mut guest)?;

        guest.write(DROP_IN, "limits.hodl = 77\n")?;
        promise!(guest.sh("systemctl reload hv-vssd.service").is_err(), "a reload with a mistake succeeded");
        told(&guest, "10-site.toml, line 1: unknown key limits.hodl; did you mean limits.hold?")?;
        guest.sh("systemctl is-active hv-vssd.service")?;
        checkpoint(&mut guest)?;

        guest.sh(&format!("rm {DROP_IN}"))?;
        guest.sh("systemctl reload hv-vssd.service")?;
        checkpoint(&mut guest)?;
        let now = guest.sh("systemctl show -P MainPID hv-vssd.service")?;
        promise!(now == pid, "the agent was started anew: {pid} became {now}");
        guest.sh("test -e /usr/share/man/man8/hv-vssd.8 -o -e /usr/share/man/man8/hv-vssd.8.gz -o -e /usr/local/share/man/man8/hv-vssd.8")?;
        let failed = booted::failed_units(&guest)?;
        promise!(failed.is_empty(), "failed units: {}", failed.join(", "));
        Ok("taken; refused with file and line, the service goes on; the same process to the end".into())
    }
}
