//! Where the results go.

use std::path::Path;

use ::tests::error::{BedError, BedResult, Context};
use ::tests::paths;

use crate::case::{CASES, Case};
use crate::results::Results;
use crate::svg::{self, PICTURES};
use crate::tables;

const BEGIN: &str = "<!-- figures: tests/run bench docs -->";
const END: &str = "<!-- end of figures -->";

/// Prints the tables, writes them and the pictures to `dir`; and to docs/ if asked for.
pub(crate) fn write(results: &Results, dir: &Path, into_docs: bool) -> BedResult<()> {
    let tables = tables::markdown(results);
    let pictures = PICTURES.map(|(name, figure)| (name, svg::draw(results, figure)));
    print!("{tables}");
    keep(&dir.join("performance.md"), &tables)?;
    for (name, picture) in &pictures {
        keep(&dir.join(name), picture)?;
    }
    println!("\n({})", dir.display());
    if into_docs {
        let shown = |case: &&Case| results.cases.iter().any(|(it, _)| it.letter == case.letter);
        let lacking: String = CASES
            .iter()
            .filter(|case| !shown(case))
            .map(|case| case.letter)
            .collect();
        if !lacking.is_empty() || results.idle.is_none() {
            eprintln!(
                "not measured here yet, and gone from the page: cases {lacking:?}{}",
                if results.idle.is_none() { ", idle" } else { "" }
            );
        }
        let docs = paths::workspace().join("docs");
        let page = docs.join("performance.md");
        let old = std::fs::read_to_string(&page).doing(|| format!("reading {}", page.display()))?;
        let new = replaced(&old, &tables).ok_or_else(|| {
            BedError::Setup(format!("no place for figures in {}", page.display()))
        })?;
        keep(&page, &new)?;
        for (name, picture) in &pictures {
            keep(&docs.join(name), picture)?;
        }
    }
    Ok(())
}

fn keep(file: &Path, text: &str) -> BedResult<()> {
    std::fs::write(file, text).doing(|| format!("writing {}", file.display()))
}

/// The page with other figures; `None` if it has no place for them.
fn replaced(page: &str, figures: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{figures}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_figures_of_a_page_are_replaced() {
        let page = format!("above {BEGIN} old {END} below");
        let new = replaced(&page, "new").unwrap();
        assert_eq!(new, format!("above {BEGIN}\n\nnew\n{END} below"));
        assert_eq!(replaced("above", "new"), None);
    }
}
