//! The shipped hooks beside strangers: a socket, a port or a process that any user can have is left alone, and told. The servers are stand-ins.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::{Uid, setfsuid};
use tempfile::TempDir;

/// Who runs the servers: an account that every system has (`daemon`).
const SERVER: u32 = 1;

/// Any user.
const STRANGER: u32 = 65534;

/// A hook with its settings in a scratch directory, beside stand-ins for the clients that it starts.
struct Bench {
    directory: TempDir,
    processes: Vec<Child>,
    sockets: Vec<UnixListener>,
}

impl Bench {
    /// `None` where users cannot be changed.
    fn new() -> Option<Self> {
        if !Uid::effective().is_root() {
            eprintln!("skipped: another user's sockets need root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        mode(directory.path(), 0o755);
        let bench = Self {
            directory,
            processes: Vec::new(),
            sockets: Vec::new(),
        };
        fs::create_dir(bench.path("bin")).unwrap();
        // Notes whom a client talks to; one that asks a stranger would wait for its answer.
        for client in ["psql", "redis-cli", "mariadb"] {
            bench.program(
                client,
                &format!("echo \"$*\" >>{}; echo OK", bench.path("asked").display()),
            );
        }
        bench.program("runuser", "shift 3; exec \"$@\"");
        Some(bench)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        mode(&path, 0o755);
    }

    fn directory(&self, name: &str, owner: u32, bits: u32) {
        fs::create_dir(self.path(name)).unwrap();
        chown(self.path(name), Some(owner), None).unwrap();
        mode(&self.path(name), bits);
    }

    /// A process of this user that lives as long as the test.
    fn process(&mut self, program: &Path, user: u32) -> u32 {
        let mut command = Command::new(program);
        command.arg("1000").uid(user).gid(user).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let pid = child.id();
        self.processes.push(child);
        pid
    }

    /// A listening socket that never answers.
    fn socket(&mut self, name: &str, owner: u32) {
        let path = self.path(name);
        self.sockets.push(UnixListener::bind(&path).unwrap());
        chown(&path, Some(owner), None).unwrap();
    }

    fn lock(&self, name: &str, owner: u32, pid: u32) {
        let path = self.path(&format!("{name}.lock"));
        fs::write(&path, format!("{pid}\n/data\n")).unwrap();
        chown(&path, Some(owner), None).unwrap();
    }

    /// Runs the hook with these settings: what it says. It must succeed, and at once.
    fn freeze(&self, hook: &str, settings: &str) -> String {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../packaging/hooks")
            .join(hook);
        let text = fs::read_to_string(source).unwrap();
        let conf = self.path("settings");
        fs::write(&conf, settings).unwrap();
        let line = format!("settings=/etc/hv-vssd/hooks.conf.d/{hook}");
        assert!(text.contains(&line), "where the settings are");
        let text = text.replace(&line, &format!("settings={}", conf.display()));
        let path = self.path(hook);
        fs::write(&path, text).unwrap();
        let begun = Instant::now();
        let output = Command::new("sh")
            .arg(&path)
            .arg("freeze")
            .env(
                "PATH",
                format!(
                    "{}:/usr/sbin:/usr/bin:/sbin:/bin",
                    self.path("bin").display()
                ),
            )
            .output()
            .unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "the hook fails: {said}");
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "it waited for a stranger: {said}"
        );
        said
    }

    /// The arguments of each call of a client since the last time.
    fn asked(&self) -> Vec<String> {
        let asked = fs::read_to_string(self.path("asked")).unwrap_or_default();
        let _ = fs::remove_file(self.path("asked"));
        asked.lines().map(str::to_owned).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for child in &mut self.processes {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn mode(path: &Path, bits: u32) {
    fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
}

#[test]
fn postgresql_asks_only_servers_of_its_own_users() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let sleep = Path::new("/bin/sleep");
    let (server, stranger) = (bench.process(sleep, SERVER), bench.process(sleep, STRANGER));
    bench.directory("run", SERVER, 0o2775);
    bench.directory("tmp", 0, 0o1777);
    bench.directory("open", 0, 0o777);
    bench.directory("theirs", STRANGER, 0o755);
    for directory in ["run", "tmp", "open", "theirs"] {
        let name = format!("{directory}/.s.PGSQL.5432");
        bench.socket(&name, SERVER);
        bench.lock(&name, SERVER, server);
    }
    // Silent, and beside a lock file that names a process that lives.
    bench.socket("tmp/.s.PGSQL.6000", STRANGER);
    bench.lock("tmp/.s.PGSQL.6000", STRANGER, stranger);
    // Of servers that are dead: a lock file of the stranger's, one that is a pipe, one with a number that is somebody else's by now.
    bench.socket("tmp/.s.PGSQL.6001", SERVER);
    bench.lock("tmp/.s.PGSQL.6001", STRANGER, server);
    bench.socket("tmp/.s.PGSQL.6002", SERVER);
    nix::unistd::mkfifo(
        &bench.path("tmp/.s.PGSQL.6002.lock"),
        nix::sys::stat::Mode::from_bits_truncate(0o666),
    )
    .unwrap();
    bench.socket("tmp/.s.PGSQL.6003", SERVER);
    bench.lock("tmp/.s.PGSQL.6003", SERVER, stranger);
    // A link of the stranger's to a server.
    std::os::unix::fs::symlink("../run/.s.PGSQL.5432", bench.path("tmp/.s.PGSQL.6004")).unwrap();

    let directories =
        ["run", "tmp", "open", "theirs"].map(|name| bench.path(name).display().to_string());
    let settings = format!(
        "users='daemon nosuchuser'\nsocket_directories='{}'\n",
        directories.join(" ")
    );
    let said = bench.freeze("postgresql", &settings);
    let asked = bench.asked();
    assert_eq!(asked.len(), 2, "{asked:?}\n{said}");
    for (call, directory) in asked.iter().zip(&directories) {
        assert!(
            call.contains(&format!("-h {directory} -p 5432")),
            "{asked:?}"
        );
    }
    assert!(said.contains("1 socket(s) of user nobody"), "{said}");
    for directory in &directories[2..] {
        assert!(
            said.contains(&format!("left alone: {directory}/.s.PGSQL.5432")),
            "{said}"
        );
    }
}

#[test]
fn very_many_sockets_of_a_stranger_cost_no_time() {
    let Some(bench) = Bench::new() else { return };
    bench.directory("tmp", 0, 0o1777);
    // The hook cannot tell them from listening ones before it asks.
    for number in 0..5000 {
        let path = bench.path(&format!("tmp/.s.PGSQL.{number}"));
        drop(UnixListener::bind(&path).unwrap());
        chown(&path, Some(STRANGER), None).unwrap();
    }
    let settings = format!(
        "users=daemon\nsocket_directories='{}'\n",
        bench.path("tmp").display()
    );
    let said = bench.freeze("postgresql", &settings);
    assert!(said.contains("5000 socket(s) of user nobody"), "{said}");
    assert!(bench.asked().is_empty());
}

#[test]
fn mariadb_asks_only_servers_of_its_own_users() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    bench.directory("tmp", 0, 0o1777);
    bench.directory("open", 0, 0o777);
    bench.socket("tmp/silent.sock", STRANGER);
    bench.socket("open/mysqld.sock", SERVER);
    let sockets =
        ["tmp/silent.sock", "open/mysqld.sock"].map(|name| bench.path(name).display().to_string());
    let settings = format!("users='daemon root'\nsockets='{}'\n", sockets.join(" "));
    let said = bench.freeze("mariadb", &settings);
    for socket in sockets {
        assert!(said.contains(&format!("left alone: {socket}")), "{said}");
    }
    assert!(bench.asked().is_empty());
}

#[test]
fn redis_asks_only_servers_of_its_own_users() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let program = bench.path("redis-server");
    fs::copy("/bin/sleep", &program).unwrap();
    // A process that a stranger has named so, and its silent port.
    bench.process(&program, STRANGER);
    let silent = std::thread::spawn(|| {
        // Of this thread alone.
        setfsuid(Uid::from_raw(STRANGER));
        TcpListener::bind("127.0.0.1:0").unwrap()
    });
    let silent = silent.join().unwrap();
    let port = silent.local_addr().unwrap().port();
    let settings = format!("users=daemon\nservers='-h 127.0.0.1 -p {port}'\n");
    assert_eq!(bench.freeze("redis", &settings), "", "no server runs");
    assert!(bench.asked().is_empty());
    // With a server that runs elsewhere.
    bench.process(&program, SERVER);
    bench.directory("tmp", 0, 0o1777);
    bench.socket("tmp/silent.sock", STRANGER);
    let path = bench.path("tmp/silent.sock").display().to_string();
    let settings = format!("users=daemon\nservers='-h 127.0.0.1 -p {port}\n-s {path}'\n");
    let said = bench.freeze("redis", &settings);
    for server in [format!("-p {port}"), format!("-s {path}")] {
        assert!(
            said.contains(&format!("{server}, since user 65534 listens there")),
            "{said}"
        );
    }
    assert!(bench.asked().is_empty());
}

#[test]
fn redis_asks_a_server_of_its_own_user() {
    let Some(mut bench) = Bench::new() else {
        return;
    };
    let program = bench.path("redis-server");
    fs::copy("/bin/sleep", &program).unwrap();
    bench.process(&program, SERVER);
    bench.directory("run", 0, 0o755);
    bench.socket("run/redis.sock", SERVER);
    bench.program(
        "redis-cli",
        &format!(
            "echo \"$*\" >>{}; case $* in *INFO*) echo aof_enabled:1; echo aof_buffer_length:0 ;; *) echo OK ;; esac",
            bench.path("asked").display()
        ),
    );
    let settings = format!(
        "users=daemon\nservers='-s {}'\n",
        bench.path("run/redis.sock").display()
    );
    let said = bench.freeze("redis", &settings);
    assert!(
        said.contains("rests; its append-only file has everything"),
        "{said}"
    );
    assert!(
        bench
            .asked()
            .iter()
            .any(|call| call.contains("CLIENT PAUSE"))
    );
}
