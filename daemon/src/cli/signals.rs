//! Signals that nobody can mean as an end: `killall -SIGNAL hv-vssd` and `systemctl kill --signal=SIGNAL` reach whatever is there.

use nix::sys::signal::{SigSet, Signal};

/// Those of a defect, which blocking would only hide, and those that neither end nor stop a process unless it asks for it.
const LEFT_ALONE: [Signal; 12] = [
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGSEGV,
    Signal::SIGSYS,
    Signal::SIGCHLD,
    Signal::SIGCONT,
    Signal::SIGURG,
    Signal::SIGWINCH,
    // Ignored by the Rust runtime.
    Signal::SIGPIPE,
];

/// From now on no signal but those of `meant` ends or stops this thread, or those that it starts: of signal(7) all that
/// can be blocked, the real-time signals too. Blocked, not ignored: programs that are started do not inherit it, as
/// `std::process::Command` clears the mask.
///
/// To be called before any thread is started.
pub(super) fn block_all_but(meant: &[Signal]) {
    let mut set = SigSet::all();
    for signal in meant.iter().chain(&LEFT_ALONE) {
        set.remove(*signal);
    }
    if let Err(errno) = set.thread_block() {
        tracing::warn!("signals cannot be blocked: {errno}");
    }
}
