//! What must be right of several keys together.

use std::collections::BTreeMap;

use super::error::Problem;
use super::load::Origin;
use super::{Config, DRIVER_LIMIT, OTHER_WORK};

/// Whether a FREEZE that uses up all its limits is answered before the driver answers it.
pub(super) fn check(config: &Config, origins: &BTreeMap<String, Origin>) -> Option<Problem> {
    let longest = config.freeze_request();
    if longest <= DRIVER_LIMIT {
        return None;
    }
    let mut parts = vec![
        ("limits.flush", config.limits.flush),
        ("limits.freeze", config.limits.freeze),
    ];
    if config.hooks.enabled {
        parts.push(("hooks.total", config.hooks.total));
    }
    let named: Vec<String> = parts
        .iter()
        .map(|(key, seconds)| match origins.get(*key) {
            Some(origin) => format!(
                "{key} = {seconds} ({}, line {})",
                origin.file.display(),
                origin.line
            ),
            None => format!("{key} = {seconds} (default)"),
        })
        .collect();
    // At least one of them was set: the defaults fit.
    let origin = parts
        .iter()
        .filter_map(|(key, _)| origins.get(*key))
        .next_back()?;
    Some(Problem {
        file: origin.file.clone(),
        line: Some(origin.line),
        message: format!(
            "{} add up to {longest} s, with {OTHER_WORK} s for all else; they must not be more than {DRIVER_LIMIT} s, because the driver itself answers FREEZE with \
             failure after 900 s",
            named.join(", ")
        ),
    })
}
