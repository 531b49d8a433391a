//! The shipped hooks with the real servers of the distribution: what was acknowledged is in the image, which starts clean.
//!
//! The servers keep their data on a disk of its own. In each hold the host copies that disk's image over another disk, on which
//! other instances of the servers are started after the thaw.

use std::time::{Duration, Instant};

use tests::agent::Agent;
use tests::assets::Kernel;
use tests::booted::{self, System};
use tests::error::{Failure, Step};
use tests::faults::fails;
use tests::guest::{Disk, FsKind, Guest, poll_until};
use tests::host::Operation;
use tests::scenario::Bed;
use tests::steps::{succeeds, writable};
use tests::{images, promise, scenario};

const SERVERS: [&str; 3] = ["postgresql", "mariadb-server", "redis-server"];

/// In MiB, of either disk.
const DISK: u64 = 640;

/// The disks' numbers: after those of the system.
const DATA: usize = 4;
const IMAGE: usize = 5;

/// For a server to start or a load to show, on a busy machine.
const SOON: Duration = Duration::from_secs(300);

/// Run before systemd is: no server starts on its own before its data is where it should be. The disks of a machine that
/// copies images all the time may need half a minute for a server's sync.
const SETUP: &str = "
systemctl --quiet disable postgresql mariadb redis-server
cat >/etc/mysql/mariadb.conf.d/90-bed.cnf <<X
[mariadbd]
datadir = /data/mysql
log_bin = bed
sync_binlog = 1
innodb_log_file_size = 16M
innodb_flush_log_at_trx_commit = 1
X
mkdir -p /etc/hv-vssd/hooks.conf.d
printf '[hooks]\nlimit = 120\ntotal = 240\n' >/etc/hv-vssd/config.toml
echo 'lock_wait=100' >/etc/hv-vssd/hooks.conf.d/mariadb
for name in postgresql mariadb redis; do
    ln -s /usr/lib/hv-vssd/hooks.available/$name /etc/hv-vssd/hooks.d/10-$name 2>/dev/null || true
done
";

/// Data to its disk, servers up, a table of each kind.
const PREPARE: &str = r#"
mkdir /data /image
mount /dev/vde /data
cluster=$(echo /etc/postgresql/*/main)
mv "$(sed -n "s/^data_directory = '\(.*\)'.*/\1/p" $cluster/postgresql.conf)" /data/postgresql
sed -i "s,^data_directory = .*,data_directory = '/data/postgresql'," $cluster/postgresql.conf
echo 'max_wal_size = 64MB' >>$cluster/postgresql.conf
mv /var/lib/mysql /data/mysql
mkdir /data/redis; chown redis: /data/redis
mount --bind /data/redis /var/lib/redis
systemctl start postgresql mariadb redis-server
# Any user's: it never answers.
runuser -u nobody -- perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) && bind(S, pack_sockaddr_un($ARGV[0])) && listen(S, 5) or die;
    open(L, ">", "$ARGV[0].lock"); print L "$$\n"; close(L); sleep 100000' /tmp/.s.PGSQL.6000 >/dev/null 2>&1 </dev/null &
until [ -s /tmp/.s.PGSQL.6000.lock ]; do sleep 0.1; done
runuser -u postgres -- psql -Xq -c 'CREATE TABLE t (id serial PRIMARY KEY, pad text)'
mariadb -e 'CREATE DATABASE bed; USE bed; CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, pad text) ENGINE=InnoDB;
    CREATE TABLE m (id int AUTO_INCREMENT PRIMARY KEY, pad text) ENGINE=MyISAM'
"#;

/// Each writes what it does, and what it was told is done, to a file in memory.
const LOADS: [(&str, &str); 4] = [
    (
        "postgresql",
        "while echo \"INSERT INTO t (pad) VALUES (repeat('x', 200)) RETURNING id;\"; do sleep 0.02; done | \
         runuser -u postgres -- stdbuf -oL psql -XqAt",
    ),
    (
        "innodb",
        "while echo \"INSERT INTO t (pad) VALUES (repeat('x', 200)); SELECT LAST_INSERT_ID();\"; do sleep 0.02; done | \
         mariadb -NBn bed",
    ),
    (
        "myisam",
        "while echo \"INSERT INTO m (pad) VALUES (repeat('x', 200)); SELECT LAST_INSERT_ID();\"; do sleep 0.02; done | \
         mariadb -NBn bed",
    ),
    (
        "redis",
        "while echo 'INCR n'; do sleep 0.02; done | stdbuf -oL redis-cli",
    ),
];

/// Starts servers on the image, and prints what they have: the highest number and how many there are.
const LOOK: &str = r#"
mount /dev/vdf /image
trap 'kill -9 $(cat /image/mysql/mysql.pid /image/redis/redis.pid 2>/dev/null) 2>/dev/null; sleep 0.2; umount /image' EXIT
rm -f /image/postgresql/postmaster.pid
bin=$(echo /usr/lib/postgresql/*/bin)
etc=$(echo /etc/postgresql/*/main)
mkdir -p /run/image; chown postgres: /run/image
runuser -u postgres -- $bin/pg_ctl -s -w -t 60 -D /image/postgresql -l /run/image/postgresql.log -o \
    "-c config_file=$etc/postgresql.conf -c data_directory=/image/postgresql -c port=5499 -c unix_socket_directories=/run/image" start
mariadbd --no-defaults --user=mysql --datadir=/image/mysql --socket=/run/image.sock --pid-file=/image/mysql/mysql.pid --skip-networking \
    --skip-slave-start --innodb-log-file-size=16M >/run/image.mysql 2>&1 &
chown -R redis: /image/redis
redis-server --port 0 --unixsocket /run/image.redis --dir /image/redis --daemonize yes --pidfile /image/redis/redis.pid --save '' \
    --appendonly "$(cat /run/redis-aof)" >/dev/null
p="runuser -u postgres -- psql -XAtq -h /run/image -p 5499"
echo "postgresql $($p -F ' ' -c 'SELECT max(id), count(*) FROM t')"
if grep -E 'PANIC|invalid page|could not' /run/image/postgresql.log; then exit 1; fi
$p -c 'CHECKPOINT' -c 'ANALYZE t' >/dev/null
runuser -u postgres -- $bin/pg_ctl -s -m immediate -D /image/postgresql stop
until mariadb-admin -S /run/image.sock ping >/dev/null 2>&1; do
    kill -0 $! || { cat /run/image.mysql; exit 1; }
    sleep 0.1
done
m="mariadb -NB -S /run/image.sock bed"
echo "innodb $($m -e 'SELECT MAX(id), COUNT(*) FROM t')"
echo "checked $($m -e 'CHECK TABLE t' | cut -f4) $($m -e 'CHECK TABLE m FAST' | cut -f4 | tr '\n' ' ')"
echo "myisam $($m -e 'SELECT MAX(id), COUNT(*) FROM m')"
echo "redis $(redis-cli -s /run/image.redis get n) 0"
echo "binlog $(cd /image/mysql; ls bed.0* | while read -r f; do echo "$f $(stat -c %s $f)"; done | sort | tail -n 2 | tr '\n' ' ')"
"#;

fn ready(bed: &mut Bed) -> Step<Guest> {
    let disks = [
        Disk::sized(FsKind::Ext4, DISK),
        Disk::sized(FsKind::Blank, DISK),
    ];
    let system = System::new()
        .packages(&SERVERS)
        .setup(SETUP)
        .disks(&disks)
        .memory_mib(1280);
    let guest = bed.boot_system(&system)?;
    long(&guest, PREPARE)?;
    guest.sh("echo no >/run/redis-aof")?;
    for (name, load) in LOADS {
        let script = format!("{{ {load}; }} >/run/acked-{name} 2>/run/errors-{name}");
        guest.spawn(name, &["/bin/sh", "-c", &script])?;
    }
    for (name, _) in LOADS {
        goes_on(&guest, name, 0)?;
    }
    Ok(guest)
}

/// As [`Guest::sh`], for what takes long.
fn long(guest: &Guest, script: &str) -> Step<String> {
    let ended = guest.exec(&["/bin/sh", "-euc", script], SOON)?;
    if ended.status == Some(0) {
        return Ok(ended.stdout);
    }
    Err(Failure::Promise(format!(
        "ended with {:?}: {}{}",
        ended.status, ended.stdout, ended.stderr
    )))
}

/// What the server has acknowledged last.
fn acked(guest: &Guest, name: &str) -> Step<u64> {
    let line = guest.sh(&format!("tail -n 2 /run/acked-{name} | head -n 1"))?;
    Ok(line.trim().parse().unwrap_or_default())
}

/// The load gets further than that.
fn goes_on(guest: &Guest, name: &str, from: u64) -> Step<()> {
    let further = poll_until(SOON, || {
        Ok::<_, Failure>((acked(guest, name)? > from).then_some(()))
    })?;
    further.ok_or_else(|| {
        let errors = guest
            .sh(&format!("tail -n 3 /run/errors-{name}"))
            .unwrap_or_default();
        Failure::Promise(format!("{name} does not go on after {from}: {errors}"))
    })
}

/// Takes the image in a hold, and starts the servers from it.
fn image_is_clean(bed: &Bed, guest: &mut Guest) -> Step<()> {
    succeeds(guest, Operation::FREEZE)?;
    let mut promised = Vec::new();
    for (name, _) in LOADS {
        promised.push((name, acked(guest, name)?));
    }
    images::overwrite(guest.image(DATA)?, guest.image(IMAGE)?)?;
    succeeds(guest, Operation::THAW)?;
    for (name, last) in &promised {
        goes_on(guest, name, *last)?;
    }
    let seen = long(guest, LOOK)?;
    for (name, last) in promised {
        let line = seen.lines().find_map(|line| line.strip_prefix(name));
        let numbers: Vec<u64> = line
            .unwrap_or_default()
            .split_whitespace()
            .flat_map(str::parse)
            .collect();
        promise!(
            numbers.first().is_some_and(|highest| *highest >= last),
            "{name}: {last} was acknowledged before the image was taken, which has {numbers:?}"
        );
    }
    promise!(
        seen.contains("checked OK Table is already up to date"),
        "tables in the image are not clean: {seen}"
    );
    let log = booted::journal(guest, bed.agent)?;
    promise!(
        log.contains("left alone in /tmp: 1 socket(s) of user nobody"),
        "the log does not tell of a stranger's socket: {log}"
    );
    let (_, position) = log.rsplit_once("binary log at: ").unwrap_or_default();
    let mut words = position.split_whitespace();
    let noted = words
        .find(|word| word.starts_with("bed.0"))
        .zip(words.next())
        .map(|(file, offset)| format!("{file} {offset}"));
    promise!(
        noted.as_ref().is_some_and(|noted| seen.contains(noted)),
        "the position of the binary log that was noted is {noted:?}, the image has: {seen}"
    );
    Ok(())
}

scenario! {
    row: "24", "PostgreSQL, MariaDB and Redis under load with the shipped hooks: servers start from the image, with all that was acknowledged",
    c_daemon_gap: Some("has no hooks: tables are open in the image, and no position of the binary log is noted"),
    fn images_of_databases_start_clean(bed) {
        let mut guest = ready(bed)?;
        // Many where only `tests/run full` looks: a round takes half a minute, and the kernels differ in nothing that a database sees.
        let rounds: u32 = if bed.agent == Agent::HvVssd && bed.kernel == Kernel::V6_12 { 20 } else { 4 };
        let started = Instant::now();
        for round in 1..=rounds {
            if round == rounds.div_ceil(2) + 1 {
                guest.sh("redis-cli config set appendonly yes; echo yes >/run/redis-aof")?;
                let rewritten = poll_until(SOON, || {
                    let info = guest.sh("redis-cli info persistence")?;
                    let done = info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0");
                    Ok::<_, Failure>(done.then_some(()))
                })?;
                promise!(rewritten.is_some(), "Redis does not begin its append-only file");
            }
            println!("checkpoint {round} after {:?}", started.elapsed());
            image_is_clean(bed, &mut guest).map_err(|failure| match failure {
                Failure::Promise(what) => Failure::Promise(format!("checkpoint {round}: {what}")),
                other => other,
            })?;
        }
        bed.measured("one checkpoint with its check", started.elapsed() / rounds);
        Ok(format!("{rounds} of {rounds} images: PostgreSQL, InnoDB, MyISAM and Redis start clean with all that was acknowledged, binary log as noted"))
    }
}

scenario! {
    row: "24", "database servers that are stopped before FREEZE, and in the hold: the guest is never kept frozen",
    c_daemon_gap: Some("has no hooks: success is told whatever state the servers are in"),
    fn servers_that_hang_keep_nothing_frozen(bed) {
        let mut guest = ready(bed)?;
        guest.sh("mkdir -p /etc/hv-vssd; printf '[hooks]\nlimit = 60\ntotal = 120\n' >/etc/hv-vssd/config.toml; systemctl restart hv-vss-daemon")?;
        bed.agent.wait_registered(&mut guest)?;
        let servers = [("mariadbd", "innodb"), ("postgres", "postgresql"), ("redis-server", "redis")];
        for (process, load) in servers {
            guest.sh(&format!("pkill -STOP -x {process}"))?;
            fails(&mut guest, Operation::FREEZE, SOON)?;
            writable(&guest, &["/var/tmp", "/data"])?;
            let last = acked(&guest, load)?;
            guest.sh(&format!("pkill -CONT -x {process}"))?;
            goes_on(&guest, load, last + 3)?;

            succeeds(&mut guest, Operation::FREEZE)?;
            guest.sh(&format!("pkill -STOP -x {process}"))?;
            succeeds(&mut guest, Operation::THAW)?;
            writable(&guest, &["/var/tmp", "/data"])?;
            let last = acked(&guest, load)?;
            guest.sh(&format!("pkill -CONT -x {process}"))?;
            goes_on(&guest, load, last + 3)?;
        }
        Ok("3 of 3 servers: stopped before FREEZE it fails within its hook's limit, stopped in the hold THAW is answered; each goes on when it may".into())
    }
}
