//! Packets between the bed's virtio-serial port and the host's end of the stand-in bus.
//! A frame towards the bed starts with a byte: 0 for a packet of the driver,
//! otherwise the errno with which the bus refused the bed's packet.
//!
//! When each packet passed is written down in [`HOST_TIMES`], in the guest's own time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use tests::proto::{HOST_TIMES, VMBUS_PORT, read_frame, write_frame};

use crate::clock::now;
use crate::serve::open_port;

/// More than the largest packet of the bus.
const BUFFER: usize = 65536;

/// Starts both directions.
pub(crate) fn start() -> io::Result<()> {
    let mut from_bed = open_port(VMBUS_PORT)?;
    let to_bed = Arc::new(Mutex::new(from_bed.try_clone()?));
    let mut to_driver = File::options()
        .read(true)
        .write(true)
        .open("/dev/vmbus_host")?;
    let mut from_driver = to_driver.try_clone()?;
    let mut times_in = File::options().create(true).append(true).open(HOST_TIMES)?;
    let mut times_out = File::options().append(true).open(HOST_TIMES)?;
    let refusals = to_bed.clone();
    std::thread::spawn(move || {
        while let Ok(packet) = read_frame(&mut from_bed) {
            stamp(&mut times_in, "in", &packet);
            if let Err(error) = to_driver.write(&packet) {
                let errno = error.raw_os_error().unwrap_or(255);
                tell(&refusals, u8::try_from(errno).unwrap_or(255), &[]);
            }
        }
    });
    std::thread::spawn(move || {
        let mut buffer = vec![0; BUFFER];
        while let Ok(len) = from_driver.read(&mut buffer) {
            let packet = buffer.get(..len).unwrap_or_default();
            stamp(&mut times_out, "out", packet);
            tell(&to_bed, 0, packet);
        }
    });
    Ok(())
}

/// A line: the direction, the operation (its byte follows the headers), the time.
fn stamp(times: &mut File, direction: &str, packet: &[u8]) {
    let operation = packet.get(28).copied().unwrap_or_default();
    let line = format!("{direction} {operation} {}\n", now().unwrap_or_default());
    let _ = times.write_all(line.as_bytes());
}

fn tell(port: &Mutex<File>, kind: u8, packet: &[u8]) {
    let mut frame = vec![kind];
    frame.extend_from_slice(packet);
    if let Ok(mut port) = port.lock() {
        if let Err(error) = write_frame(&mut *port, &frame) {
            eprintln!("hv-testguest: relay: {error}");
        }
    }
}
