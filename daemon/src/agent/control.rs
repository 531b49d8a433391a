//! The agent's end of the control socket. Every client has a task of its own: the event loop never waits for one.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::control::lines::{Lines, MOST_REQUEST};
use crate::control::message::{Refusal, Request, line};
use crate::run_files;

/// At one more the oldest that waits for nothing is dropped: no timer is needed for those that stay silent.
const MOST_CLIENTS: usize = 8;

/// Only if the kernel cannot hand over a connection, for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Requests that wait for the event loop; a client waits to add one.
const MOST_WAITING: usize = 8;

/// Answers that wait for a client: a request has two at most, and the next one is read after the first.
const MOST_ANSWERS: usize = 4;

/// Names a connection.
pub(super) type ClientId = u64;

/// The socket and the tasks behind it. Dropping it removes the socket and drops all clients.
#[derive(Debug)]
pub(super) struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
    inbox: mpsc::Receiver<Message>,
}

/// What comes from a client.
#[derive(Debug)]
pub(super) enum Message {
    /// It wants something.
    Request {
        client: ClientId,
        request: Request,
        answers: Answers,
    },
    /// It has gone, and with it what it wanted.
    Gone(ClientId),
}

/// The way back to a client.
#[derive(Clone, Debug)]
pub(super) struct Answers(mpsc::Sender<Answer>);

#[derive(Debug)]
struct Answer {
    line: Vec<u8>,
    /// Nothing more follows for this request.
    last: bool,
}

impl Answers {
    /// Tells the client something, without waiting; `last`: the request is done with. A client that has gone is told nothing.
    pub(super) fn tell<T: serde::Serialize>(&self, answer: Result<T, Refusal>, last: bool) {
        let line = line(answer);
        let _ = self.0.try_send(Answer { line, last });
    }
}

impl Control {
    /// Listens at `path`, in place of a socket that a dead agent has left; the caller holds the agent's lock. To be called within a tokio runtime.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        run_files::make_directory_of(path)?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (sender, inbox) = mpsc::channel(MOST_WAITING);
        Ok(Self {
            path: path.to_owned(),
            task: tokio::spawn(accept(listener, sender)),
            inbox,
        })
    }

    /// The next message of a client.
    pub(super) async fn message(&mut self) -> Message {
        match self.inbox.recv().await {
            Some(message) => message,
            // The listener lives as long as this does.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        let _ = fs::remove_file(&self.path);
    }
}

/// Whoever ends this task ends its clients'.
struct Client {
    task: JoinHandle<()>,
    busy: Arc<AtomicBool>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: UnixListener, inbox: mpsc::Sender<Message>) {
    let mut clients: Vec<Client> = Vec::new();
    let mut id: ClientId = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        clients.retain(|client| !client.task.is_finished());
        if clients.len() >= MOST_CLIENTS {
            let idle = clients
                .iter()
                .position(|client| !client.busy.load(Ordering::Relaxed));
            // All are waiting for an answer: this one has to come again.
            let Some(idle) = idle else { continue };
            drop(clients.remove(idle));
        }
        id += 1;
        let busy = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(id, stream, inbox.clone(), Arc::clone(&busy)));
        clients.push(Client { task, busy });
    }
}

async fn serve(
    id: ClientId,
    stream: UnixStream,
    inbox: mpsc::Sender<Message>,
    busy: Arc<AtomicBool>,
) {
    // Beside the mode of the socket: a descriptor may have been passed on.
    if !is_allowed(&stream) {
        let refusal = Refusal::of("the control socket is for root alone");
        let _ = send(&stream, &line::<()>(Err(refusal))).await;
        return;
    }
    let _ = converse(id, &stream, &inbox, &busy).await;
    let _ = inbox.send(Message::Gone(id)).await;
}

fn is_allowed(stream: &UnixStream) -> bool {
    let ours = nix::unistd::geteuid().as_raw();
    stream
        .peer_cred()
        .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == ours)
}

/// Until the client goes, or does what it should not.
async fn converse(
    id: ClientId,
    stream: &UnixStream,
    inbox: &mpsc::Sender<Message>,
    busy: &AtomicBool,
) -> io::Result<()> {
    let (sender, mut answers) = mpsc::channel(MOST_ANSWERS);
    let answers_to = Answers(sender);
    let mut lines = Lines::new(MOST_REQUEST);
    // A request has been handed on, and its first answer has not come.
    let mut asked = false;
    // It has said all that it wants to say; what it waits for is still told.
    let mut ended = false;
    loop {
        if ended && !busy.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(request) = (!asked).then(|| lines.take()).flatten() {
            match Request::parse(&request) {
                Ok(request) => {
                    asked = true;
                    busy.store(true, Ordering::Relaxed);
                    let message = Message::Request {
                        client: id,
                        request,
                        answers: answers_to.clone(),
                    };
                    if inbox.send(message).await.is_err() {
                        return Ok(());
                    }
                }
                Err(refusal) => send(stream, &line::<()>(Err(refusal))).await?,
            }
            continue;
        }
        tokio::select! {
            biased;
            answer = answers.recv() => {
                let Some(Answer { line, last }) = answer else {
                    return Ok(());
                };
                asked = false;
                if last {
                    busy.store(false, Ordering::Relaxed);
                }
                send(stream, &line).await?;
            }
            ready = stream.readable(), if !ended => {
                ready?;
                let mut buffer = [0; 1024];
                match stream.try_read(&mut buffer) {
                    Ok(0) => {
                        ended = true;
                        let _ = inbox.send(Message::Gone(id)).await;
                    }
                    Ok(count) => {
                        let received = buffer.get(..count).unwrap_or_default();
                        if let Err(error) = lines.push(received) {
                            let refusal = Refusal::of(error.to_string());
                            return send(stream, &line::<()>(Err(refusal))).await;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

async fn send(stream: &UnixStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
