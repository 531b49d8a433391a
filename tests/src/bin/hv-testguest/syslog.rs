//! A listener on /dev/log, so that what the C daemon says is not lost.

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

/// The messages so far.
#[derive(Clone, Default)]
pub(crate) struct Syslog(Arc<Mutex<String>>);

impl Syslog {
    /// Starts to listen; without a socket there are just no messages.
    pub(crate) fn listen() -> Self {
        let log = Self::default();
        let Ok(socket) = UnixDatagram::bind("/dev/log") else {
            return log;
        };
        let messages = log.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 8192];
            while let Ok(len) = socket.recv(&mut buffer) {
                let message = buffer.get(..len).unwrap_or_default();
                if let Ok(mut text) = messages.0.lock() {
                    text.push_str(&String::from_utf8_lossy(message));
                    text.push('\n');
                }
            }
        });
        log
    }

    /// All messages, a line each.
    pub(crate) fn text(&self) -> String {
        self.0.lock().map_or_else(|_| String::new(), |t| t.clone())
    }
}
