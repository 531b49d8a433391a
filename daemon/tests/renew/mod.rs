//! Files of the project that are made from the code. A test compares them; with `UPDATE_GOLDEN=1` in the environment it writes them instead.

use std::path::Path;
use std::{env, fs};

/// Fails unless `file`, named from the root of the project, holds exactly what was made.
pub(crate) fn assert_is(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Another test may be reading it.
        let new = path.with_extension(format!("new-{}", std::process::id()));
        fs::write(&new, made).unwrap();
        fs::rename(new, &path).unwrap();
        return;
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    if there == made {
        return;
    }
    let differing = there
        .lines()
        .zip(made.lines())
        .position(|(there, made)| there != made)
        .unwrap_or_else(|| there.lines().count().min(made.lines().count()));
    panic!(
        "{file} is not what the code makes, from line {} on:\nthere:    {}\nthe code: {}\nread what has changed, then renew it: UPDATE_GOLDEN=1 cargo test run -p hv-vssd",
        differing + 1,
        there.lines().nth(differing).unwrap_or("(end)"),
        made.lines().nth(differing).unwrap_or("(end)"),
    );
}
