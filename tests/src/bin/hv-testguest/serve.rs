//! Requests of the bed, each in a thread of its own.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::kmod::{ModuleInitFlags, finit_module};
use nix::sys::mman::{MlockAllFlags, mlockall};
use tests::proto::{self, Call, Reply, Request, Response};

use crate::{Outcome, mounts, processes::Jobs, relay, syslog::Syslog, writer};

/// Opens a virtio-serial port by its name, waiting for the driver to find it.
pub(crate) fn open_port(name: &str) -> std::io::Result<File> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(path) = find_port(name) {
            return File::options().read(true).write(true).open(path);
        }
        if Instant::now() > deadline {
            return Err(std::io::Error::other(format!("no virtio port {name}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn find_port(name: &str) -> Option<PathBuf> {
    let ports = std::fs::read_dir("/sys/class/virtio-ports").ok()?;
    ports.flatten().find_map(|port| {
        let found = std::fs::read_to_string(port.path().join("name")).ok()?;
        let node = Path::new("/dev").join(port.file_name());
        (found.trim() == name && node.exists()).then_some(node)
    })
}

/// As [`serve`], in a system of its own: /dev/log is the journal's, and `/` may be frozen.
pub(crate) fn serve_system() -> Outcome {
    // What is mapped from files; memory that comes later has none behind it.
    mlockall(MlockAllFlags::MCL_CURRENT)?;
    answer_all(Syslog::default())
}

/// Serves requests until the bed goes away.
pub(crate) fn serve() -> Outcome {
    answer_all(Syslog::listen())
}

fn answer_all(syslog: Syslog) -> Outcome {
    let mut input = open_port(proto::CONTROL_PORT)?;
    let output = Arc::new(Mutex::new(input.try_clone()?));
    let jobs = Arc::new(Jobs::default());
    respond(&output, 0, Ok(Reply::Ready));
    loop {
        let frame = proto::read_frame(&mut input)?;
        let request: Request = serde_json::from_slice(&frame)?;
        let (output, jobs, syslog) = (output.clone(), jobs.clone(), syslog.clone());
        std::thread::spawn(move || {
            let result = answer(request.call, &jobs, &syslog).map_err(|error| error.to_string());
            respond(&output, request.id, result);
        });
    }
}

/// Loads a module built for another bus: its symbol versions and version magic are ignored.
pub(crate) fn load_module(path: &str, parameters: &str) -> std::io::Result<()> {
    let flags = ModuleInitFlags::MODULE_INIT_IGNORE_MODVERSIONS
        | ModuleInitFlags::MODULE_INIT_IGNORE_VERMAGIC;
    let module = File::open(path)?;
    let parameters = std::ffi::CString::new(parameters)?;
    Ok(finit_module(module.as_fd(), &parameters, flags)?)
}

fn respond(output: &Mutex<File>, id: u64, result: Result<Reply, String>) {
    let response = Response { id, result };
    let Ok(bytes) = serde_json::to_vec(&response) else {
        return;
    };
    if let Ok(mut output) = output.lock() {
        if let Err(error) = proto::write_frame(&mut *output, &bytes) {
            eprintln!("hv-testguest: answer {id}: {error}");
        }
    }
}

fn answer(
    call: Call,
    jobs: &Jobs,
    syslog: &Syslog,
) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    Ok(match call {
        Call::Exec {
            argv,
            stdin,
            limit_ms,
        } => Reply::Exec(crate::processes::exec(
            &argv,
            stdin,
            Duration::from_millis(limit_ms),
        )?),
        Call::Spawn { job, argv, env } => Reply::Spawned {
            pid: jobs.spawn(&job, &argv, &env)?,
        },
        Call::Signal { job, signal } => {
            jobs.signal(&job, signal)?;
            Reply::Done
        }
        Call::Job { job } => Reply::Job(jobs.state(&job)?),
        Call::Read { path } => {
            Reply::Text(String::from_utf8_lossy(&std::fs::read(path)?).into_owned())
        }
        Call::Write { path, text } => {
            std::fs::write(path, text)?;
            Reply::Done
        }
        Call::LoadModule { path, parameters } => {
            load_module(&path, &parameters)?;
            Reply::Done
        }
        Call::Relay => {
            relay::start()?;
            Reply::Done
        }
        Call::VmbusControl { word } => {
            std::fs::write("/dev/vmbus_control", word)?;
            Reply::Done
        }
        Call::Writer { state } => Reply::Writer(writer::state(&state)?),
        Call::BindMounts { from, under, count } => {
            mounts::bind(&from, Path::new(&under), count)?;
            Reply::Done
        }
        Call::MountUnserved { kind, at } => {
            mounts::unserved(&kind, &at)?;
            Reply::Done
        }
        Call::MakeSocket { path } => {
            std::mem::forget(UnixListener::bind(path)?);
            Reply::Done
        }
        Call::Syslog => Reply::Text(syslog.text()),
    })
}
