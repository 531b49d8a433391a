//! Results between runs: a file for each case, so that cases can be measured apart and shown together.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use ::tests::assets::Kernel;
use ::tests::error::{BedError, BedResult, Context};
use ::tests::paths;

use crate::case::{CASES, Case};
use crate::results::{Measured, MeasuredIdle, Results};

/// The directory of a kernel's results.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// Makes it if need be.
    pub(crate) fn of(kernel: Kernel) -> BedResult<Self> {
        Self::at(&paths::testbed().join("bench").join(kernel.series()))
    }

    /// Where tables and pictures are put, too.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn at(dir: &Path) -> BedResult<Self> {
        fs::create_dir_all(dir).doing(|| format!("making {}", dir.display()))?;
        Ok(Self { dir: dir.into() })
    }

    fn case(&self, case: &Case) -> PathBuf {
        self.dir.join(format!("case-{}.json", case.letter))
    }

    fn idle(&self) -> PathBuf {
        self.dir.join("idle.json")
    }

    /// Keeps a case in place of an older one.
    pub(crate) fn put(&self, case: &Case, measured: &Measured) -> BedResult<()> {
        write(&self.case(case), measured)
    }

    /// Keeps the agents' cost at rest.
    pub(crate) fn put_idle(&self, measured: &MeasuredIdle) -> BedResult<()> {
        write(&self.idle(), measured)
    }

    /// All there is.
    pub(crate) fn all(&self) -> BedResult<Results> {
        let mut results = Results {
            idle: read(&self.idle())?,
            ..Results::default()
        };
        for case in CASES {
            if let Some(measured) = read(&self.case(&case))? {
                results.cases.push((case, measured));
            }
        }
        Ok(results)
    }
}

fn write(file: &Path, value: &impl Serialize) -> BedResult<()> {
    let text = serde_json::to_string_pretty(value).doing(|| "writing results".into())?;
    // A run that is ended while it writes leaves the old results.
    let new = file.with_extension("new");
    fs::write(&new, text).doing(|| format!("writing {}", new.display()))?;
    fs::rename(&new, file).doing(|| format!("keeping {}", file.display()))
}

/// `None` where there is no such file.
fn read<T: DeserializeOwned>(file: &Path) -> BedResult<Option<T>> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(|| format!("reading {}", file.display()))?,
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        BedError::Setup(format!(
            "{} is of another version of this program: remove it ({error})",
            file.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::examples::measured;

    #[test]
    fn a_case_replaces_its_older_self_alone() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::at(dir.path()).unwrap();
        kept.put(&CASES[3], &measured("old", &[])).unwrap();
        kept.put(&CASES[0], &measured("old", &[])).unwrap();
        kept.put(&CASES[3], &measured("new", &[])).unwrap();
        let all = kept.all().unwrap();
        let seen: Vec<_> = all
            .cases
            .iter()
            .map(|(case, measured)| (case.letter, measured.about.hv_vssd.as_str()))
            .collect();
        assert_eq!(seen, [('a', "old"), ('d', "new")]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::at(dir.path()).unwrap();
        fs::write(kept.case(&CASES[0]), "{}").unwrap();
        let error = kept.all().unwrap_err().to_string();
        assert!(error.contains("case-a.json"), "{error}");
    }
}
