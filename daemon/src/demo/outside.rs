//! The machine as it is: a thread that stays in the first mount namespace, where mkfs and fsck are, and the scratch
//! directory, which is removed at the end whatever happens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use super::DemoError;
use crate::quiesce::guardian::Guardian;

type Task = Box<dyn FnOnce() + Send>;

/// Runs programs in the namespace it was started in. Dropping it removes the scratch directory.
pub(super) struct Outside {
    tasks: Option<mpsc::Sender<Task>>,
    thread: Option<thread::JoinHandle<()>>,
    directory: PathBuf,
}

impl Outside {
    pub(super) fn start(parent: &Path) -> Result<Self, DemoError> {
        let directory =
            nix::unistd::mkdtemp(&parent.join("hv-vssd-demo-XXXXXX")).map_err(|error| {
                DemoError::because(
                    format!(
                        "no scratch directory can be made in {} (see --dir)",
                        parent.display()
                    ),
                    error,
                )
            })?;
        let (tasks, inbox) = mpsc::channel::<Task>();
        let thread = thread::Builder::new()
            .name("outside".to_owned())
            .spawn(move || inbox.into_iter().for_each(|task| task()))
            .map_err(|error| DemoError::because("no thread can be started", error))?;
        Ok(Self {
            tasks: Some(tasks),
            thread: Some(thread),
            directory,
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A guardian: started here, because the program and its loader are out of sight of the demo's namespace.
    pub(super) fn guardian(&self) -> Result<Guardian, DemoError> {
        self.call(|| Guardian::start(false))
            .and_then(|result| result.map_err(io::Error::other))
            .map_err(|error| DemoError::because("no guardian can be had", error))
    }

    /// Where a program is: in the search path, or where only root's search path looks.
    pub(super) fn find(&self, program: &'static str) -> Option<PathBuf> {
        self.call(move || find(program)).ok().flatten()
    }

    /// Runs a program to its end with its output captured.
    pub(super) fn run(&self, program: &Path, arguments: &[&str]) -> Result<Output, DemoError> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .env("LC_ALL", "C");
        self.call(move || command.output())
            .and_then(|result| result)
            .map_err(|error| {
                DemoError::because(format!("{} cannot be run", program.display()), error)
            })
    }

    /// Runs a program on an image.
    pub(super) fn run_on(
        &self,
        program: &'static str,
        arguments: &[&str],
        image: &Path,
    ) -> Result<Output, DemoError> {
        let path = self
            .find(program)
            .ok_or_else(|| DemoError::new(format!("{program} is not installed")))?;
        let image = image.to_string_lossy();
        let mut arguments = arguments.to_vec();
        arguments.push(&image);
        self.run(&path, &arguments)
    }

    fn call<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (answer, result) = mpsc::channel();
        let task: Task = Box::new(move || drop(answer.send(task())));
        let gone = || io::Error::other("its thread has ended");
        self.tasks
            .as_ref()
            .ok_or_else(gone)?
            .send(task)
            .map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let directory = self.directory.clone();
        let _ = self.call(move || fs::remove_dir_all(directory));
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/bin".into()])
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
