//! The database in the guest: PostgreSQL, and a stream of commits by pgbench.

use std::time::Duration;

use nix::sys::signal::Signal;

use ::tests::error::{BedError, BedResult, Step};
use ::tests::guest::{Guest, poll_until};

use crate::cluster::{BATCH, USER, WAL_IN_GUEST};
use crate::programs::{PGBENCH, POSTGRES, PSQL};

const LIMIT: Duration = Duration::from_secs(120);

const DATA: &str = "/mnt/10/data";
const SOCKET: &str = "/run/postgres";

/// Names of the processes in the bed.
const SERVER: &str = "postgres";
const CLIENTS: &str = "pgbench";

/// Until the clients have made their connections and filled their caches.
const WARM_UP: Duration = Duration::from_secs(2);

/// One transaction: its beginning and end on the guest's clock, in nanoseconds.
pub(crate) type Transaction = (u64, u64);

/// Starts the server on its mounted disks.
pub(crate) fn start(guest: &Guest) -> BedResult<()> {
    guest.sh(&format!(
        "grep -q ^postgres: /etc/passwd || echo postgres:x:{USER}:{USER}::/run:/bin/sh >> /etc/passwd
         mkdir -p {SOCKET}; chown -R {USER}:{USER} {SOCKET} {DATA} {WAL_IN_GUEST}; chmod 700 {DATA}"
    ))?;
    let user = format!("{USER}:{USER}");
    // It refuses to be root.
    let argv = ["/bin/start-stop-daemon", "-S", "-c", &user, "-a", POSTGRES];
    guest.spawn(SERVER, &[&argv[..], &["--", "-D", DATA]].concat())?;
    let up = poll_until(LIMIT, || {
        let done = guest.exec(&psql(&["SELECT 1"]), LIMIT)?;
        let state = guest.job(SERVER)?;
        match (done.status, state.running) {
            (Some(0), _) => Ok(Some(())),
            (_, true) => Ok(None),
            _ => Err(BedError::Guest(format!("PostgreSQL: {}", state.output))),
        }
    })?;
    up.ok_or_else(|| BedError::Timeout {
        what: "a first answer of PostgreSQL".into(),
        limit: LIMIT,
    })
}

/// Ends the server and waits for that.
pub(crate) fn stop(guest: &Guest) -> BedResult<()> {
    guest.signal(SERVER, Signal::SIGINT)?;
    ended(guest, SERVER)
}

/// Makes everything clean, then as much dirty as the batch is, and starts the stream of commits.
pub(crate) fn start_stream(guest: &Guest) -> BedResult<()> {
    sql(guest, &["TRUNCATE batch", "CHECKPOINT"])?;
    guest.exec(&["/bin/sync"], LIMIT)?;
    sql(guest, &[BATCH])?;
    guest.sh(&format!("rm -f {SOCKET}/commits.*"))?;
    let prefix = format!("--log-prefix={SOCKET}/commits");
    let mut argv = vec![PGBENCH, "-h", SOCKET, "-U", "postgres"];
    // Simple updates: no rows that all clients wait for. Every transaction is logged.
    argv.extend(["-n", "-N", "-c", "4", "-T", "100000", "-l", &prefix]);
    argv.push("postgres");
    guest.spawn(CLIENTS, &argv)?;
    std::thread::sleep(WARM_UP);
    Ok(())
}

/// Ends the stream and returns its transactions.
pub(crate) fn end_stream(guest: &Guest) -> Step<Vec<Transaction>> {
    // The end of its time, as -T has it: it writes out its log.
    guest.signal(CLIENTS, Signal::SIGALRM)?;
    ended(guest, CLIENTS)?;
    let said = guest.job(CLIENTS)?;
    let log = guest.sh(&format!("cat {SOCKET}/commits.*"))?;
    let wall = guest.exec(&["/sbin/hv-testguest", "wall"], LIMIT)?.stdout;
    let wall = wall.trim().parse();
    let wall = wall.map_err(|_| BedError::Guest("no wall clock".into()))?;
    let transactions: Vec<Transaction> = log
        .lines()
        .filter_map(|line| transaction(line, wall))
        .collect();
    if said.status != Some(0) || transactions.is_empty() {
        return Err(BedError::Guest(format!("pgbench: {}", said.output)).into());
    }
    Ok(transactions)
}

/// Ends a stream that [`end_stream`] did not.
pub(crate) fn abandon_stream(guest: &Guest) {
    // One that has ended is left alone.
    let _ = guest.signal(CLIENTS, Signal::SIGKILL);
}

/// A line of pgbench's log: client, number, microseconds it took, script, end in seconds and microseconds of the wall clock,
/// which is ahead of the guest's by `wall` nanoseconds.
fn transaction(line: &str, wall: u64) -> Option<Transaction> {
    let mut numbers = line.split(' ').map(str::parse::<u64>);
    let mut number = || numbers.next()?.ok();
    let (_client, _number, took, _script) = (number()?, number()?, number()?, number()?);
    let end = (number()? * 1_000_000 + number()?) * 1_000;
    let end = end.checked_sub(wall)?;
    Some((end.checked_sub(took * 1_000)?, end))
}

fn psql<'a>(commands: &[&'a str]) -> Vec<&'a str> {
    let mut argv = vec![PSQL, "-h", SOCKET, "-U", "postgres", "-qAt"];
    argv.extend(["-v", "ON_ERROR_STOP=1"]);
    for command in commands {
        argv.extend(["-c", command]);
    }
    argv.push("postgres");
    argv
}

fn sql(guest: &Guest, commands: &[&str]) -> BedResult<()> {
    let done = guest.exec(&psql(commands), LIMIT)?;
    if done.status == Some(0) {
        return Ok(());
    }
    Err(BedError::Guest(format!("psql: {}", done.stderr)))
}

fn ended(guest: &Guest, job: &str) -> BedResult<()> {
    let end = poll_until(LIMIT, || {
        let running = guest.job(job)?.running;
        Ok::<_, BedError>((!running).then_some(()))
    })?;
    end.ok_or_else(|| BedError::Timeout {
        what: format!("the end of {job}"),
        limit: LIMIT,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_put_on_the_guests_clock() {
        let second = 1_000_000_000;
        let wall = 1_700_000_000 * second;
        assert_eq!(
            transaction("0 199 2241 0 1700000005 995598", wall),
            Some((5 * second + 993_357_000, 5 * second + 995_598_000))
        );
        assert_eq!(transaction("0 199 skipped 0 1700000005 995598", wall), None);
    }
}
