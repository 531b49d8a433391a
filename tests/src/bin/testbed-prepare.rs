//! Prepares what the guests are made of. Safe to run again, and several at once.
//!
//! With the argument `base` only what does not depend on the program under test.

use std::process::ExitCode;
use std::sync::Mutex;

use tests::assets::{Kernel, prepare};
use tests::debian::{SETS, Variant};
use tests::error::{BedError, BedResult};
use tests::package;

/// Much of the work is done by programs that keep one processor busy.
const AT_ONCE: usize = 2;

fn main() -> ExitCode {
    let base = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("base") => true,
        Some(other) => {
            eprintln!("usage: testbed-prepare [base], not '{other}'");
            return ExitCode::from(2);
        }
    };
    match everything(base) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn everything(base: bool) -> BedResult<()> {
    for kernel in Kernel::ALL {
        println!("guest {}: {}", kernel.series(), prepare(kernel)?);
    }
    if !nix::unistd::geteuid().is_root() {
        println!("Debian: not made, that needs root");
        return Ok(());
    }
    if base {
        return of_each_system(|variant| variant.prepare());
    }
    for revision in package::REVISIONS {
        println!("package {}", package::deb(revision)?.display());
    }
    let [first, ..] = package::REVISIONS;
    let package = package::deb(first)?;
    of_each_system(|variant| {
        let done = variant.prepare()?;
        variant.with_package(&package)?;
        Ok(done)
    })
}

/// Makes the Debian systems, some at once, and says what was done for each.
fn of_each_system(make: impl Fn(Variant<'static>) -> BedResult<String> + Sync) -> BedResult<()> {
    // The last is the longest.
    let waiting = Mutex::new(SETS.to_vec());
    let next = || waiting.lock().ok().and_then(|mut sets| sets.pop());
    let work = || {
        while let Some(variant) = next() {
            println!("Debian {}", make(variant)?);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            let broken = || Err(BedError::Setup("a thread that makes a system broke".into()));
            worker.join().unwrap_or_else(|_| broken())
        })
    })
}
