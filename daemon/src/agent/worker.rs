//! The event loop's way to the engine, which a thread of its own has (`desk`): the loop never waits for a file system.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::desk::Desk;
use super::work::{Command, News, Order, Reload};
use crate::quiesce::{Backend, Engine, Signal};

/// Hands work to the engine; what comes of it is [`News`]. Dropping it ends the thread, which thaws first.
#[derive(Debug)]
pub(super) struct Worker {
    commands: Option<mpsc::Sender<Command>>,
    news: UnboundedReceiver<News>,
    signal: Arc<Signal>,
    /// The guardian's process id; 0 for none.
    guardian: Arc<AtomicU32>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start<B: Backend>(
        engine: Engine<B>,
        reload: Option<Reload<B>>,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::channel();
        let (outbox, news) = unbounded_channel();
        let signal = engine.signal();
        let guardian = Arc::new(AtomicU32::new(engine.guardian_pid().unwrap_or(0)));
        let desk = Desk::new(
            engine,
            reload,
            commands.clone(),
            outbox,
            Arc::clone(&guardian),
        );
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || desk.serve(&inbox))?;
        Ok(Self {
            commands: Some(commands),
            news,
            signal,
            guardian,
            thread: Some(thread),
        })
    }

    pub(super) fn check(&self) {
        self.signal.reset();
        self.send(Command::Check);
    }

    pub(super) fn freeze(&self, order: Order) {
        self.signal.reset();
        self.send(Command::Freeze(order));
    }

    pub(super) fn abort(&self) {
        self.signal.abort();
    }

    /// `kept`: nothing has cut the hold short.
    pub(super) fn thaw(&self, kept: bool) {
        self.send(Command::Thaw { kept });
    }

    pub(super) fn reload(&self) {
        self.send(Command::Reload);
    }

    /// The guardian's process id, as far as the engine knows.
    pub(super) fn guardian_pid(&self) -> Option<u32> {
        let pid = self.guardian.load(Ordering::Relaxed);
        (pid > 0).then_some(pid)
    }

    /// What comes next; `None` when the thread has died.
    pub(super) async fn news(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Ends the thread, which thaws and lets applications go on first; what it still had to tell.
    pub(super) fn end(&mut self) -> Vec<News> {
        self.signal.abort();
        self.send(Command::End);
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        std::iter::from_fn(|| self.news.try_recv().ok()).collect()
    }

    fn send(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // A dead thread shows as the end of the outcomes.
            let _ = commands.send(command);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}
