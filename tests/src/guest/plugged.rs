//! Disks that a running guest gets, as a host adds them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::qmp::Qmp;
use super::{Disk, Guest, poll_until, saved};
use crate::error::{BedError, BedResult};

/// For the guest's kernel to find a disk, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// As it is told to the guest's kernel.
fn serial(number: usize) -> String {
    format!("disk{number}")
}

impl Qmp {
    /// The same as the options of a disk that is there at power-on.
    fn add_disk(&mut self, number: usize, image: &Path, limit: Option<u64>) -> BedResult<()> {
        let serial = serial(number);
        self.execute(
            "blockdev-add",
            json!({
                "driver": "raw", "node-name": serial, "discard": "unmap", "cache": { "direct": true },
                "file": { "driver": "file", "filename": image, "discard": "unmap", "cache": { "direct": true } },
            }),
        )?;
        let mut drive = serial.clone();
        if let Some(bytes_per_second) = limit {
            let group = format!("{serial}-speed");
            let limits = json!({ "bps-write": bytes_per_second });
            let made = json!({ "qom-type": "throttle-group", "id": group, "limits": limits });
            self.execute("object-add", made)?;
            drive = format!("{serial}-throttled");
            let filter = json!({
                "driver": "throttle", "node-name": drive, "throttle-group": group, "file": serial,
            });
            self.execute("blockdev-add", filter)?;
        }
        let device = json!({ "driver": "virtio-blk-pci", "drive": drive, "serial": serial });
        self.execute("device_add", device)?;
        Ok(())
    }
}

impl Guest {
    /// Makes disks and adds them: `/dev/vda`, `/dev/vdb`, … after those that are there.
    pub(super) fn add_disks(&mut self, disks: &[Disk]) -> BedResult<()> {
        for disk in disks {
            let number = self.disks.len();
            let image = saved::disk(&self.dir, number);
            disk.make(&image)?;
            self.monitor
                .add_disk(number, &image, disk.bytes_per_second())?;
            self.disks.push(image);
            // One after the other: the kernel names them as it finds them.
            self.await_disk(number)?;
        }
        Ok(())
    }

    fn await_disk(&self, number: usize) -> BedResult<()> {
        let letter = u8::try_from(number).map_or('?', |number| char::from(b'a' + number));
        let path = format!("/sys/block/vd{letter}/serial");
        let found = poll_until(LIMIT, || {
            // Until the kernel has found it there is no such file.
            let said = self.read(&path).unwrap_or_default();
            Ok::<_, BedError>((said.trim() == serial(number)).then_some(()))
        })?;
        found.ok_or(BedError::Timeout {
            what: format!("/dev/vd{letter}"),
            limit: LIMIT,
        })
    }
}
