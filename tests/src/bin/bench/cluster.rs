//! A small PostgreSQL database, made on this machine with the unpacked server and put on two disk images.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ::tests::command::run;
use ::tests::error::{BedResult, Context};

use crate::packages::Unpacked;
use crate::programs::{DATABASE_HOME, image};

/// Data, then WAL.
pub(crate) const IMAGES: [&str; 2] = ["data.img", "wal.img"];

/// The server's user here and in the guest: it refuses to be root.
pub(crate) const USER: u32 = 65534;

/// Where the guest mounts the WAL.
pub(crate) const WAL_IN_GUEST: &str = "/mnt/11/wal";

/// Nothing that writes by itself at its own times: what is dirty at FREEZE is what the case says. A small cache,
/// so that changed pages are handed to the kernel soon. Room for WAL files that exist already.
const CONFIGURATION: &str = "\
listen_addresses = ''
unix_socket_directories = '/run/postgres'
shared_buffers = 16MB
dynamic_shared_memory_type = sysv
jit = off
autovacuum = off
bgwriter_lru_maxpages = 0
checkpoint_timeout = 1d
min_wal_size = 256MB
max_wal_size = 400MB
timezone = 'GMT'
log_timezone = 'GMT'
";

/// A batch of 40 MB in a table of its own: 8 rows a page.
pub(crate) const BATCH: &str =
    "INSERT INTO batch SELECT repeat('d', 960) FROM generate_series(1, 39064)";

/// Makes both images in `to`.
pub(crate) fn make(unpacked: &Unpacked, scratch: &Path, to: &Path) -> BedResult<()> {
    let (data_disk, wal_disk) = (scratch.join("data-disk"), scratch.join("wal-disk"));
    let (data, wal) = (data_disk.join("data"), wal_disk.join("wal"));
    open_to_all(scratch)?;
    for dir in [&data_disk, &wal_disk] {
        fs::create_dir(dir).doing(|| format!("making {}", dir.display()))?;
        if is_root()? {
            chown(dir, Some(USER), Some(USER)).doing(|| format!("giving {}", dir.display()))?;
        }
    }
    let program = |name: &str| command(unpacked, name);
    run(program("initdb")?
        .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"])
        .arg("--no-sync")
        .arg("-D")
        .arg(&data)
        .arg("--waldir")
        .arg(&wal))?;
    let configuration = data.join("postgresql.conf");
    fs::write(&configuration, CONFIGURATION).doing(|| "writing postgresql.conf".into())?;
    // A socket's path must be short, and its directory the server's own.
    let socket = &wal_disk;
    run(program("pg_ctl")?
        .arg("-D")
        .arg(&data)
        .arg("-l")
        .arg(data_disk.join("log"))
        .args(["-w", "-o", &format!("-k {}", socket.display()), "start"]))?;
    let filled = fill(unpacked, socket);
    let stopped = run(program("pg_ctl")?
        .arg("-D")
        .arg(&data)
        .args(["-w", "-m", "fast", "stop"]));
    filled.and(stopped)?;
    let link = data.join("pg_wal");
    fs::remove_file(&link).doing(|| format!("removing {}", link.display()))?;
    symlink(WAL_IN_GUEST, &link).doing(|| format!("linking {}", link.display()))?;
    for (tree, name) in [&data_disk, &wal_disk].into_iter().zip(IMAGES) {
        image(tree, &to.join(name), "512M")?;
    }
    Ok(())
}

/// The tables of pgbench and of the batch; and as much WAL as there will be files for, which are then used again.
fn fill(unpacked: &Unpacked, socket: &Path) -> BedResult<String> {
    run(command(unpacked, "pgbench")?
        .args(["-U", "postgres", "-i", "-q", "-s", "5", "-h"])
        .arg(socket)
        .arg("postgres"))?;
    let mut psql = command(unpacked, "psql")?;
    psql.args(["-U", "postgres", "-v", "ON_ERROR_STOP=1", "-h"]);
    psql.arg(socket)
        .args(["-c", "CREATE TABLE batch (row text)"]);
    for _ in 0..8 {
        psql.args(["-c", BATCH, "-c", "TRUNCATE batch"]);
    }
    run(psql.args(["-c", "CHECKPOINT", "postgres"]))
}

fn command(unpacked: &Unpacked, program: &str) -> BedResult<Command> {
    let program = unpacked.path(&format!("{DATABASE_HOME}/bin/{program}"));
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", unpacked.library_path());
    command.env("LC_ALL", "C").current_dir("/");
    if is_root()? {
        command.uid(USER).gid(USER);
    }
    Ok(command)
}

fn is_root() -> BedResult<bool> {
    let this = fs::metadata("/proc/self").doing(|| "asking who runs this".into())?;
    Ok(this.uid() == 0)
}

fn open_to_all(dir: &Path) -> BedResult<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))
        .doing(|| format!("opening {}", dir.display()))
}
