//! What strace sees of an agent, above all between the first freeze and the last thaw.

use std::time::Duration;

use crate::error::{Failure, Step};
use crate::guest::{Guest, poll_until};
use crate::promise;

/// Where the guest has what it saw.
pub const FILE: &str = "/run/strace";

/// Its name and options: with threads and children, each line with its time.
pub const COMMAND: [&str; 7] = ["strace", "-f", "-ttt", "-s", "16", "-o", FILE];

/// For it to attach to a few processes, on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// Attaches it to processes, whose ids stand in a text, with all their threads. Its job is called `strace`.
///
/// # Errors
/// It does not attach.
pub fn attach(guest: &Guest, pids: &str) -> Step<()> {
    let pids: Vec<&str> = pids.split_whitespace().collect();
    // Where it is differs between the initramfs and Debian.
    let script = format!(
        "PATH=$PATH:/sbin; exec {} -p {}",
        COMMAND.join(" "),
        pids.join(" -p ")
    );
    guest.spawn("strace", &["/bin/sh", "-c", &script])?;
    let attached = poll_until(LIMIT, || {
        let said = guest.job("strace")?.output;
        Ok::<_, Failure>((said.matches("attached").count() == pids.len()).then_some(()))
    })?;
    promise!(
        attached.is_some(),
        "strace: {}",
        guest.job("strace")?.output
    );
    Ok(())
}

/// Looks for what must not be there from the first FIFREEZE of a checkpoint to its last FITHAW:
/// an open, an exec, a path looked up, a log record. Gives the number of holds and of their lines.
///
/// # Errors
/// There is such a call: the sentence has its line.
pub fn quiet_holds(trace: &str) -> Step<(usize, usize)> {
    let lines: Vec<&str> = trace.lines().collect();
    let find = |from: usize, what: &str| {
        let mut rest = lines.iter().skip(from);
        rest.position(|line| line.contains(what))
            .map(|found| from + found)
    };
    let (mut holds, mut calls, mut at) = (0, 0, 0);
    while let Some(first) = find(at, "FIFREEZE") {
        // The next checkpoint's first freeze comes after this one's last thaw.
        let Some(thaw) = find(first, "FITHAW") else {
            break;
        };
        let next = find(thaw, "FIFREEZE").unwrap_or(lines.len());
        let is_thaw = |at: &usize| lines.get(*at).is_some_and(|line| line.contains("FITHAW"));
        let last = (thaw..next).rev().find(is_thaw).unwrap_or(thaw);
        let hold = lines.get(first..=last).unwrap_or_default();
        if let Some(found) = hold.iter().find(|line| forbidden(line)) {
            return Err(Failure::Promise(format!(
                "between the first freeze and the last thaw: {found}"
            )));
        }
        holds += 1;
        calls += hold.len();
        at = next;
    }
    Ok((holds, calls))
}

/// What of a system call's line in strace's output must not be there in a hold, if anything.
fn forbidden(line: &str) -> bool {
    // "PID TIME call(arguments) = result"; of one that was interrupted, the beginning is judged.
    let Some((before, arguments)) = line.split_once('(') else {
        return false;
    };
    if before.contains("<...") {
        return false;
    }
    let name = before
        .rsplit(char::is_whitespace)
        .next()
        .unwrap_or_default();
    match name {
        "open" | "openat" | "openat2" | "open_tree" | "creat" | "execve" | "execveat" | "stat"
        | "lstat" | "newfstatat" | "statx" | "statfs" | "access" | "faccessat" | "faccessat2"
        | "readlink" | "readlinkat" | "unlink" | "unlinkat" | "rename" | "renameat2" | "mkdir"
        | "mkdirat" | "connect" | "sendto" | "fork" | "vfork" => true,
        // The reply has 12 bytes, a wake-up has 8; a log record is longer.
        "write" | "writev" => {
            let length = arguments
                .split(')')
                .next()
                .and_then(|text| text.rsplit(", ").next())
                .unwrap_or_default();
            let length = length
                .split(' ')
                .next()
                .and_then(|length| length.parse().ok());
            length.is_none_or(|length: u64| length > 12)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traced_line_is_judged_by_its_call() {
        assert!(forbidden(
            "77    1.5 openat(AT_FDCWD, \"/mnt\", O_RDONLY) = 3"
        ));
        assert!(forbidden(
            "77 1.5 write(2, \"2026-11-22T00:27 a log record\"..., 75) = 75"
        ));
        assert!(!forbidden(
            "77 1.5 write(9, \"\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\", 12) = 12"
        ));
        assert!(!forbidden(
            "77 1.5 write(5, \"\\1\\0\\0\\0\\0\\0\\0\\0\", 8 <unfinished ...>"
        ));
        assert!(!forbidden("77 1.5 ioctl(8, FIFREEZE) = 0"));
        assert!(!forbidden("77 1.5 <... openat resumed>) = 3"));
        assert!(!forbidden("77 1.5 <... write resumed>\"(\", 75) = 75"));
    }

    #[test]
    fn only_what_lies_in_a_hold_counts() {
        let quiet = "1 0.1 openat(a) = 3\n1 0.2 ioctl(3, FIFREEZE) = 0\n1 0.3 poll(x) = 1\n\
            1 0.4 ioctl(3, FITHAW) = 0\n1 0.5 ioctl(4, FITHAW) = 0\n1 0.6 openat(a) = 3\n";
        assert_eq!(quiet_holds(quiet).ok(), Some((1, 4)));
        let loud = quiet.replace("poll(x)", "openat(b)");
        assert!(quiet_holds(&(quiet.to_owned() + &loud)).is_err());
    }
}
