//! Golden cases: each folder of `golden/` is a guest as its kernel tells it, with the plan expected for it.
//!
//! `proc/` (with `123/{ns/mnt,mountinfo,root,comm}` for processes of other mount namespaces), `sys/` and `dev` (lines of a path and a device number) are read in place of the system's own, `policy.toml` is optional;
//! `plan.expected` is what a person sees, `plan.expected.json` (optional) what a program gets. `UPDATE_GOLDEN=1` writes them anew.

// A helper of a test fails by panicking, like the test itself.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod planned;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hv_vssd::filesystems::{
    DeviceNodes, DeviceNumber, Plan, Policy, Roots, Scan, render_table, scan_below,
};
use planned::assert_each_once;

#[test]
fn every_golden_case_gets_its_plan() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut cases: Vec<PathBuf> = fs::read_dir(golden)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert!(cases.len() >= 10, "only {} golden cases found", cases.len());
    let mut wrong = String::new();
    for case in &cases {
        let (scan, plan) = plan(case);
        assert_each_once(&scan, &plan, &case.display().to_string());
        let json = serde_json::to_string_pretty(&plan).unwrap() + "\n";
        for (name, text) in [
            ("plan.expected", render_table(&plan, false)),
            ("plan.expected.json", json),
        ] {
            let file = case.join(name);
            if name.ends_with(".json") && !file.exists() {
                continue;
            }
            if update {
                fs::write(&file, &text).unwrap();
            }
            let expected = fs::read_to_string(&file).unwrap_or_default();
            if expected != text {
                wrong += &format!(
                    "{}\n--- expected\n{expected}--- got\n{text}\n",
                    file.display()
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

fn plan(case: &Path) -> (Scan, Plan) {
    let roots = Roots {
        proc: case.join("proc"),
        sys: case.join("sys"),
        dev: DeviceNodes::Listed(nodes(&case.join("dev"))),
        other_namespaces: true,
    };
    let scan = scan_below(&roots).unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    let policy = match fs::read_to_string(case.join("policy.toml")) {
        Ok(text) => toml::from_str(&text).unwrap(),
        Err(_) => Policy::default(),
    };
    let plan = Plan::new(&scan, &policy);
    (scan, plan)
}

fn nodes(file: &Path) -> BTreeMap<PathBuf, DeviceNumber> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .map(|line| {
            let (path, number) = line.rsplit_once(' ').unwrap();
            (path.trim().into(), number.parse().unwrap())
        })
        .collect()
}
