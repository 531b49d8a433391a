//! Copies programs of this machine together with the shared libraries they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{output, said};
use crate::error::{BedResult, Context};

/// The shared libraries of a program, as the dynamic linker finds them.
fn libraries(program: &Path) -> BedResult<BTreeSet<PathBuf>> {
    let text = said(&output(Command::new("ldd").arg(program))?);
    let words = text.split_whitespace();
    Ok(words
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

/// Copies `program` to `at` (absolute, inside `root`) and its libraries to where they are here.
pub(super) fn copy_program(program: &Path, root: &Path, at: &str) -> BedResult<()> {
    copy(program, &inside(root, Path::new(at)))?;
    for library in libraries(program)? {
        copy(&library, &inside(root, &library))?;
    }
    Ok(())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn copy(from: &Path, to: &Path) -> BedResult<()> {
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
    }
    fs::copy(from, to).doing(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}
