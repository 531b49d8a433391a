//! What was meant by a key that does not exist.

use super::keys::{BY_NAME, KEYS, SECTIONS};

/// The end of the sentence "unknown key …": a key of `section` that looks like `name`, or one that is called so in another section, or else all that there are.
pub(super) fn advice(section: &str, name: &str) -> String {
    let here = known(section);
    let alike = here
        .iter()
        .map(|known| (strsim::osa_distance(&name.to_lowercase(), known), *known))
        .filter(|(distance, known)| *distance <= (known.len() / 3).max(1))
        .min();
    if let Some((_, known)) = alike {
        return format!("did you mean {}?", join(section, known));
    }
    let elsewhere = KEYS
        .iter()
        .find(|key| key.name == name && key.section != BY_NAME);
    if let Some(key) = elsewhere {
        return format!("did you mean {}?", key.path(""));
    }
    format!("known here are {}", here.join(", "))
}

/// Keys and tables directly in `section`.
fn known(section: &str) -> Vec<&'static str> {
    let keys = KEYS.iter().filter(|key| key.section == section);
    let tables = SECTIONS.iter().filter_map(|table| {
        let below = match section {
            "" => table.name,
            _ => table.name.strip_prefix(section)?.strip_prefix('.')?,
        };
        below.split('.').next().filter(|name| !name.is_empty())
    });
    let mut names: Vec<&str> = keys.map(|key| key.name).chain(tables).collect();
    names.dedup();
    names
}

fn join(section: &str, name: &str) -> String {
    match section {
        "" => name.to_owned(),
        BY_NAME => format!("{name} for this hook"),
        _ => format!("{section}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_hand_is_understood() {
        for (section, name, meant) in [
            ("limits", "hodl", "limits.hold"),
            ("limits", "Flush", "limits.flush"),
            ("", "strictnes", "strictness"),
            ("", "limit", "limits"),
            ("", "filesytems", "filesystems"),
            ("filesystems", "exclude_type", "filesystems.exclude_types"),
            ("hooks", "by-name", "hooks.by_name"),
            (BY_NAME, "limits", "limit for this hook"),
        ] {
            assert_eq!(advice(section, name), format!("did you mean {meant}?"));
        }
    }

    #[test]
    fn a_key_of_another_section_is_found_there() {
        assert_eq!(advice("", "hold"), "did you mean limits.hold?");
        assert_eq!(advice("limits", "expedite"), "did you mean expedite?");
    }

    #[test]
    fn where_nothing_is_near_all_are_named() {
        assert_eq!(
            advice("limits", "wibble"),
            "known here are flush, freeze, hold, ignore_hung_task_panic"
        );
        let all = advice("", "wibble");
        assert_eq!(all.matches("hooks").count(), 1, "{all}");
    }
}
