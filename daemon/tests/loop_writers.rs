//! Programs that sleep with a file system's write access and hold up its freeze, on real loop devices: they are found, named and interrupted,
//! and go on as if nothing had been.
//!
//! A freeze that waits for one of them cannot be ended but by it: each test kills what it has started, whatever fails.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod scratch;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hv_vssd::filesystems::DeviceNumber;
use hv_vssd::quiesce::handle::Handle;
use hv_vssd::quiesce::writers::{
    FreezeCall, InterruptOutcome, LeftAlone, Search, SleepState, Writer, WriterRules, Writers,
    freezers,
};
use hvutil_sys::{freeze, ptrace};
use nix::mount::MsFlags;
use scratch::{Disk, PATIENCE, in_namespace, until};

/// Says which program the test binary is, when it was started as one of those below.
const ROLE: &str = "HV_VSSD_TEST_WRITER";

/// Longer than any freeze of an idle scratch disk takes.
const BLOCKED: Duration = Duration::from_millis(300);

/// Not a test: what a test starts. Its input is standard input, its output is standard error, since the harness writes to standard output.
#[test]
fn a_program_that_sleeps() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let mut output = File::from(io::stderr().as_fd().try_clone_to_owned().unwrap());
    match role.as_str() {
        "copy" => drop(io::copy(&mut input, &mut output).unwrap()),
        "copy in a thread" => {
            let others: Vec<_> = (0..3).map(|_| thread::spawn(thread::park)).collect();
            let copy = thread::spawn(move || io::copy(&mut input, &mut output));
            copy.join().unwrap().unwrap();
            others.into_iter().for_each(|other| {
                other.thread().unpark();
                other.join().unwrap();
            });
        }
        "write" => loop {
            output.write_all(&[0; 65_536]).unwrap();
        },
        other => panic!("{other}"),
    }
}

/// A program that has begun to copy from a pipe.
struct Program {
    child: Child,
}

impl Program {
    fn start(role: &str, output: File, change: impl FnOnce(&mut Command)) -> Self {
        let executable = std::env::current_exe().unwrap();
        Self::start_as(&executable, role, output, change)
    }

    fn start_as(
        executable: &Path,
        role: &str,
        output: File,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        let mut command = Command::new(executable);
        Self::run(&mut command, role, output, change)
    }

    /// With a program before it, such as `unshare`.
    fn run(
        command: &mut Command,
        role: &str,
        output: File,
        change: impl FnOnce(&mut Command),
    ) -> Self {
        command
            .args(["--exact", "a_program_that_sleeps", "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output);
        change(command);
        Self {
            child: command.spawn().unwrap(),
        }
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives it its input at last, and sees that it ends well.
    fn ends_well(mut self, text: &str) {
        let mut input = self.child.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        until("the end of the program", || {
            self.child.try_wait().unwrap().is_some()
        });
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}

/// A FIFREEZE in a thread of its own; thawed on drop, by when whoever held it up must be gone.
struct Freezing {
    thread: Option<JoinHandle<io::Result<()>>>,
    handle: Arc<Handle>,
}

impl Freezing {
    fn begin(disk: &Disk) -> Self {
        let handle = Arc::new(Handle::open(&disk.target(&[&disk.mount_point])).unwrap());
        let freezer = Arc::clone(&handle);
        Self {
            thread: Some(thread::spawn(move || freeze::freeze(&*freezer))),
            handle,
        }
    }

    fn is_done(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// One that someone holds up.
    fn held_up(disk: &Disk) -> Self {
        let freezing = Self::begin(disk);
        thread::sleep(BLOCKED);
        assert!(!freezing.is_done(), "nobody holds it up");
        freezing
    }

    fn succeeds(&mut self) {
        until("the freeze", || self.is_done());
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Freezing {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE / 4;
        while !self.is_done() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = freeze::thaw(&*self.handle);
    }
}

fn output(place: &Path) -> (PathBuf, File) {
    let path = place.join("out");
    let file = File::create(&path).unwrap();
    (path, file)
}

fn search(dev: DeviceNumber, rules: &WriterRules) -> Writers {
    Writers::gather(&Search::of(&[dev], rules.clone()))
}

/// The writers of a disk once there are any, and as many as there are then.
fn found(dev: DeviceNumber) -> Writers {
    let mut writers = Writers::default();
    until("a writer", || {
        writers = search(dev, &WriterRules::default());
        writers.of(dev).next().is_some() && writers.of(dev).all(Writer::is_asleep)
    });
    assert_eq!(writers.bound(), None);
    writers
}

fn outcomes(writers: &Writers, dev: DeviceNumber) -> Vec<InterruptOutcome> {
    let interrupted = writers.interrupt(dev);
    interrupted.into_iter().map(|each| each.outcome).collect()
}

/// The whole of it: found, named, interrupted, frozen, thawed, and gone on.
fn is_interrupted(disk: &Disk, program: Program, file: &Path) {
    let writers = found(disk.dev);
    let named: Vec<String> = writers.of(disk.dev).map(ToString::to_string).collect();
    assert_eq!(named.len(), 1, "{named:?}");
    let end = format!(" sleeps in splice(2) to {}", file.display());
    assert!(named[0].ends_with(&end), "{named:?}");
    let mut freezing = Freezing::held_up(disk);
    let started = Instant::now();
    assert_eq!(
        outcomes(&writers, disk.dev),
        [InterruptOutcome::Interrupted]
    );
    freezing.succeeds();
    assert!(started.elapsed() < Duration::from_secs(5));
    until("the program to wait for the thaw", || {
        outcomes(&writers, disk.dev) == [InterruptOutcome::WaitsForThaw]
    });
    drop(freezing);
    // It is back in its system call: nobody else may try to freeze before it has ended.
    program.ends_well("whole\n");
    assert!(!disk.is_frozen());
    assert_eq!(fs::read_to_string(file).unwrap(), "whole\n");
    assert_eq!(outcomes(&writers, disk.dev), [InterruptOutcome::Gone]);
}

#[test]
fn splice_from_a_silent_pipe_is_interrupted_and_goes_on_after_the_thaw() {
    in_namespace(|place| {
        for fstype in ["ext4", "xfs", "btrfs"] {
            let disk = Disk::new(place, fstype, fstype);
            let (path, file) = output(&disk.mount_point);
            let program = Program::start("copy", file, |_| {});
            is_interrupted(&disk, program, &path);
        }
    });
}

#[test]
fn splice_in_a_thread_of_several_is_interrupted() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (path, file) = output(&disk.mount_point);
        let program = Program::start("copy in a thread", file, |_| {});
        let writers = found(disk.dev);
        let writer = writers.of(disk.dev).next().unwrap();
        assert_eq!(writer.process.pid, program.id());
        assert_ne!(writer.tid, program.id());
        let named = format!("thread {} of process {} (", writer.tid, program.id());
        assert!(writer.to_string().starts_with(&named), "{writer}");
        is_interrupted(&disk, program, &path);
    });
}

#[test]
fn splice_of_an_ordinary_user_is_interrupted() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (path, file) = output(&disk.mount_point);
        // Where everybody may run it.
        let directory = tempfile::tempdir().unwrap();
        let executable = directory.path().join("program");
        fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
        for path in [directory.path(), &executable] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let program = Program::start_as(&executable, "copy", file, |command| {
            command.uid(65_534).gid(65_534).current_dir("/");
        });
        is_interrupted(&disk, program, &path);
    });
}

#[test]
fn splice_in_another_mount_namespace_is_interrupted() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let path = disk.mount_point.join("out");
        File::create(&path).unwrap();
        // It opens the file itself, on the mount of its own namespace.
        let mut command = Command::new("unshare");
        let script = format!("exec 2>{}; exec \"$0\" \"$@\"", path.display());
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap());
        let null = File::create("/dev/null").unwrap();
        let program = Program::run(&mut command, "copy", null, |_| {});
        is_interrupted(&disk, program, &path);
    });
}

#[test]
fn splice_of_the_first_process_of_a_container_is_interrupted() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (path, file) = output(&disk.mount_point);
        let mut command = Command::new("unshare");
        command
            .args(["--pid", "--fork", "--kill-child"])
            .arg(std::env::current_exe().unwrap());
        let program = Program::run(&mut command, "copy", file, |_| {});
        is_interrupted(&disk, program, &path);
    });
}

#[test]
fn splice_into_a_containers_overlay_holds_up_the_disk_beneath() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
            let path = disk.mount_point.join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let overlay = Some("overlay");
        let none = MsFlags::empty();
        nix::mount::mount(overlay, &merged, overlay, none, Some(options.as_str())).unwrap();
        let (path, file) = output(&merged);
        let program = Program::start("copy", file, |_| {});
        is_interrupted(&disk, program, &path);
        nix::mount::umount(&merged).unwrap();
    });
}

#[test]
fn traced_program_that_may_not_be_traced_twice_is_stopped_and_continued() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (path, file) = output(&disk.mount_point);
        let program = Program::start("copy", file, |_| {});
        let writers = found(disk.dev);
        // The thread that sleeps: the harness runs a test on one of its own.
        let pid = writers.of(disk.dev).next().unwrap().tid;
        let end = AtomicBool::new(false);
        let is_seized = AtomicBool::new(false);
        thread::scope(|scope| {
            // A debugger that passes all signals on.
            scope.spawn(|| {
                ptrace::seize(pid).unwrap();
                is_seized.store(true, Ordering::SeqCst);
                while !end.load(Ordering::SeqCst) {
                    match ptrace::stopped(pid).unwrap() {
                        Some(ptrace::Stop::Signal(signal)) => {
                            // It lets it go with that, and has it again.
                            ptrace::detach(pid, Some(signal)).unwrap();
                            ptrace::seize(pid).unwrap();
                        }
                        _ => thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
            until("the tracer", || is_seized.load(Ordering::SeqCst));
            let mut freezing = Freezing::held_up(&disk);
            let outcomes = outcomes(&writers, disk.dev);
            end.store(true, Ordering::SeqCst);
            assert_eq!(outcomes, [InterruptOutcome::StoppedAndContinued]);
            freezing.succeeds();
        });
        program.ends_well("whole\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\n");
    });
}

#[test]
fn excluded_program_is_named_and_left_alone() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (path, file) = output(&disk.mount_point);
        let mut program = Program::start("copy", file, |_| {});
        found(disk.dev);
        let name = fs::read_to_string(format!("/proc/{}/comm", program.id())).unwrap();
        let executable = std::env::current_exe().unwrap();
        let excluded = [
            // The kernel keeps 15 characters of it.
            format!("{}-and-more", name.trim_end()),
            executable.to_str().unwrap().to_owned(),
        ];
        let mut freezing = None;
        for excluded in excluded {
            let rules = WriterRules {
                interrupt: true,
                excluded: vec!["pv".to_owned(), excluded],
            };
            let writers = search(disk.dev, &rules);
            let freezing = freezing.get_or_insert_with(|| Freezing::held_up(&disk));
            let left = InterruptOutcome::LeftAlone(LeftAlone::Excluded);
            assert_eq!(outcomes(&writers, disk.dev), [left]);
            let interrupted = writers.interrupt(disk.dev);
            let text = interrupted[0].to_string();
            let end = format!(
                "(2) to {}: left alone, because exclude_processes names it",
                path.display()
            );
            assert!(text.ends_with(&end), "{text}");
            assert!(!freezing.is_done());
        }
        let rules = WriterRules {
            interrupt: false,
            excluded: Vec::new(),
        };
        let switched_off = search(disk.dev, &rules);
        let left = InterruptOutcome::LeftAlone(LeftAlone::SwitchedOff);
        assert_eq!(outcomes(&switched_off, disk.dev), [left]);
        let mut freezing = freezing.unwrap();
        assert!(!freezing.is_done());
        program.kill();
        freezing.succeeds();
    });
}

#[test]
fn stopped_program_stays_stopped_and_holds_up_nothing() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let (path, file) = output(&disk.mount_point);
        let program = Program::start("copy", file, |_| {});
        found(disk.dev);
        ptrace::signal(program.id(), program.id(), libc::SIGSTOP).unwrap();
        let mut writers = Writers::default();
        until("the stop", || {
            writers = search(disk.dev, &WriterRules::default());
            let mut states = writers.of(disk.dev).map(|writer| writer.state);
            states.next() == Some(SleepState::Stopped)
        });
        let left = InterruptOutcome::LeftAlone(LeftAlone::Stopped);
        assert_eq!(outcomes(&writers, disk.dev), [left]);
        let mut freezing = Freezing::begin(&disk);
        freezing.succeeds();
        drop(freezing);
        let stat = fs::read_to_string(format!("/proc/{}/stat", program.id())).unwrap();
        assert!(stat.contains(") T "), "{stat}");
        ptrace::signal(program.id(), program.id(), libc::SIGCONT).unwrap();
        program.ends_well("whole\n");
        assert_eq!(fs::read_to_string(path).unwrap(), "whole\n");
    });
}

#[test]
fn uninterruptible_writer_is_named_and_not_touched() {
    in_namespace(|place| {
        let outer = Disk::new(place, "outer", "ext4");
        let inner = Disk::with_image(&outer.mount_point, place, "inner", "ext4");
        let path = inner.mount_point.join("out");
        let file = File::options()
            .write(true)
            .create(true)
            .custom_flags(libc::O_SYNC)
            .open(&path)
            .unwrap();
        // What is written to the inner one now waits for the outer one's thaw.
        let mut freezing = Freezing::begin(&outer);
        freezing.succeeds();
        let program = Program::start("write", file, |_| {});
        let mut writers = Writers::default();
        until("a writer that waits for its disk", || {
            writers = search(inner.dev, &WriterRules::default());
            thread::sleep(Duration::from_millis(50));
            writers.retain_asleep();
            writers.of(inner.dev).next().is_some()
        });
        let writer = writers.of(inner.dev).next().unwrap();
        assert_eq!(writer.state, SleepState::Uninterruptible);
        let named = format!(" sleeps uninterruptibly in write(2) to {}", path.display());
        assert!(writer.to_string().ends_with(&named), "{writer}");
        assert_eq!(
            outcomes(&writers, inner.dev),
            [InterruptOutcome::Uninterruptible]
        );
        let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
        assert!(status.contains("\nTracerPid:\t0\n"), "{status}");
        drop(freezing);
        drop(program);
    });
}

#[test]
fn whoever_waits_for_a_thaw_or_writes_into_a_pipe_holds_nothing() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        // A pipe with a name on the disk, which nobody reads from.
        let pipe = disk.mount_point.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let both = File::options().read(true).write(true).open(&pipe).unwrap();
        let into_pipe = Program::start("write", both, |_| {});
        let mut freezing = Freezing::begin(&disk);
        freezing.succeeds();
        drop(freezing);
        let (_, file) = output(&disk.mount_point);
        let mut freezing = Freezing::begin(&disk);
        freezing.succeeds();
        let waiting = Program::start("write", file, |_| {});
        for (program, place) in [(&into_pipe, "pipe_write"), (&waiting, "percpu_rwsem_wait")] {
            let tasks = format!("/proc/{}/task", program.id());
            until(place, || {
                let tasks = fs::read_dir(&tasks).unwrap().flatten();
                let mut waits =
                    tasks.filter_map(|task| fs::read_to_string(task.path().join("wchan")).ok());
                waits.any(|found| found.contains(place))
            });
        }
        let writers = search(disk.dev, &WriterRules::default());
        assert_eq!(writers.iter().count(), 0, "{writers:?}");
        drop(freezing);
    });
}

#[test]
fn freeze_that_waits_is_found_with_its_superblock() {
    in_namespace(|place| {
        let here = |dev| {
            let all = freezers(Path::new("/proc"));
            let own = all
                .into_iter()
                .filter(|each| each.process.pid == std::process::id());
            own.filter(|each| each.may_be_on(dev)).collect::<Vec<_>>()
        };
        for fstype in ["ext4", "btrfs"] {
            let disk = Disk::new(place, fstype, fstype);
            assert_eq!(here(disk.dev), []);
            let (_, file) = output(&disk.mount_point);
            let mut program = Program::start("copy", file, |_| {});
            found(disk.dev);
            let mut freezing = Freezing::held_up(&disk);
            let freezers = here(disk.dev);
            assert_eq!(freezers.len(), 1, "{freezers:?}");
            assert_eq!(freezers[0].call, FreezeCall::Freeze);
            // The handle is a detached mount, of which the kernel tells the number of a disk alone.
            let told = (fstype == "ext4").then_some(disk.dev);
            assert_eq!(freezers[0].device, told);
            assert!(freezers[0].to_string().contains(" waits in FIFREEZE"));
            program.kill();
            freezing.succeeds();
            assert_eq!(here(disk.dev), []);
        }
    });
}

#[test]
fn the_bounds_of_a_search_are_kept_and_told() {
    in_namespace(|place| {
        let disk = Disk::new(place, "disk", "ext4");
        let programs: Vec<Program> = (0..3)
            .map(|index| {
                let file = File::create(disk.mount_point.join(index.to_string())).unwrap();
                Program::start("copy", file, |_| {})
            })
            .collect();
        until("all writers", || {
            search(disk.dev, &WriterRules::default())
                .of(disk.dev)
                .count()
                == 3
        });
        let devices = [disk.dev];
        let two = Writers::gather(&Search {
            most: 2,
            ..Search::of(&devices, WriterRules::default())
        });
        assert_eq!(two.of(disk.dev).count(), 2);
        let text = two.bound().unwrap().to_string();
        assert_eq!(text, "there were more writers than are kept");
        let late = Writers::gather(&Search {
            deadline: Instant::now(),
            ..Search::of(&devices, WriterRules::default())
        });
        let text = late.bound().unwrap().to_string();
        assert_eq!(text, "not all processes could be looked at in time");
        let pids: Vec<u32> = programs.iter().map(Program::id).collect();
        let spared = Writers::gather(&Search {
            spared: &pids,
            ..Search::of(&devices, WriterRules::default())
        });
        assert_eq!(spared.iter().count(), 0);
    });
}
