//! Checkpoints of a booted Debian whose own `/` is frozen.

use tests::booted::{self, System};
use tests::host::Operation;
use tests::steps::{frozen, succeeds, writable, writers_go_on, writers_sleep};
use tests::{promise, scenario};

/// On the frozen file systems: `/`, and the volume of LVM.
const WRITTEN: [&str; 2] = ["/var/tmp", "/srv"];

scenario! {
    /// Row 1 where it matters most.
    row: "1", "a booted Debian, / itself frozen, journald persistent; HOT_BACKUP, FREEZE, THAW, three times",
    c_daemon_gap: None,
    fn a_booted_debian_is_frozen_and_lives_on(bed) {
        let mut guest = bed.boot_system(&System::new())?;
        let journald = booted::property(&guest, "systemd-journald", "MainPID")?;
        let points = WRITTEN.map(ToOwned::to_owned);
        for point in &points {
            guest.start_writer(point)?;
        }
        for _ in 0..3 {
            writers_go_on(&guest, &points)?;
            succeeds(&mut guest, Operation::HOT_BACKUP)?;
            succeeds(&mut guest, Operation::FREEZE)?;
            writers_sleep(&guest, &points)?;
            frozen(&guest, &WRITTEN)?;
            succeeds(&mut guest, Operation::THAW)?;
            writable(&guest, &WRITTEN)?;
            writers_go_on(&guest, &points)?;
        }
        guest.sh("logger -t bed written after the thaw; journalctl --sync; journalctl -b -t bed | grep -q 'after the thaw'")?;
        promise!(
            booted::property(&guest, "systemd-journald", "MainPID")? == journald,
            "journald is not the one that was there before"
        );
        let failed = booted::failed_units(&guest)?;
        promise!(failed.is_empty(), "failed units: {}", failed.join(", "));
        Ok("9 of 9 statuses 0; journald lives and stores".into())
    }
}
