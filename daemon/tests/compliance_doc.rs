//! docs/compliance.md: it has every case of Microsoft's suites, names scenarios that exist, and says of them what docs/scenarios.md says.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The cases of lis-test, as its XML files name them.
const LIS_TEST: [&str; 48] = [
    "VSS_BackupRestore",
    "VSS_BackupRestore_ext3_vhd",
    "VSS_BackupRestore_ext4_vhd",
    "VSS_BackupRestore_reiserfs_vhd",
    "VSS_BackupRestore_ext4_vhdx",
    "VSS_BackupRestore_ISO_NoNetwork",
    "VSS_BackupRestore_3Chain_VHD",
    "VSS_BackupRestore_ISCSI",
    "VSS_BackupRestore_DiskStress",
    "VSS_BackupRestore_State_Off",
    "VSS_BackupRestore_State_Paused",
    "VSS_BackupRestore_PassTru",
    "VSS_BackupRestore_Fail",
    "STOR_VSS_BackupRestore",
    "STOR_VSS_BackupRestore_ext3_vhd",
    "STOR_VSS_BackupRestore_ext3_vhdx",
    "STOR_VSS_BackupRestore_ext4_vhd",
    "STOR_VSS_BackupRestore_ext4_vhdx",
    "STOR_VSS_BackupRestore_reiserfs_vhd",
    "STOR_VSS_BackupRestore_reiserfs_vhdx",
    "STOR_VSS_BackupRestore_MultiFS_vhdx",
    "STOR_VSS_BackupRestore_ISO_NoNetwork",
    "STOR_VSS_BackupRestore_3Chain_VHD",
    "STOR_VSS_BackupRestore_ISCSI",
    "STOR_VSS_BackupRestore_DiskStress",
    "STOR_VSS_BackupRestore_State_Off",
    "STOR_VSS_BackupRestore_State_Paused",
    "STOR_VSS_BackupRestore_PassTru",
    "STOR_VSS_BackupRestore_Fail",
    "STOR_VSS_BackupRestore_Mount_Multi_Paths",
    "STOR_VSS_BackupRestore_Mount_Squashfs",
    "STOR_VSS_Backup_Disable_Enable_VSS",
    "STOR_VSS_Backup_Change_Hypervvssd",
    "SecureBootBasicVSSBackup",
    "ProductionCheckpoint",
    "ProductionCheckpoint_Failback",
    "ProductionCheckpoint_ext3",
    "ProductionCheckpoint_ext4",
    "ProductionCheckpoint_btrfs",
    "ProductionCheckpoint_IDE_SCSI",
    "ProductionCheckpoint_SCSI_vhdx_xfs",
    "ProductionCheckpoint_ISO_NoNetwork",
    "ProductionCheckpoint_3Chain_VHD",
    "ProductionCheckpoint_iSCSI",
    "Hyperv_Daemons_Verify_Default_Status",
    "Hyperv_Daemons_Verify_Default_Files",
    "StressReloadModules",
    "StressReloadModules_UP",
];

/// Those of LISAv2, as its XML files name them, first and last.
const LISA_V2: [&str; 34] = [
    "VSS-BACKUPRESTORE-MULTIFS-VHDX",
    "STOR-VSS-BACKUPRESTORE-MULTIFS-VHDX",
    "VSS-BACKUPRESTORE-ISO-NONETWORK",
    "STOR-VSS-BACKUPRESTORE-ISO-NONETWORK",
    "VSS-3CHAIN-VHD-BACKUP",
    "STOR-VSS-3CHAIN-VHD-BACKUP",
    "VSS-BACKUP-PRESTORE-STATE-PAUSED",
    "STOR-VSS-BACKUP-PRESTORE-STATE-PAUSED",
    "VSS-BACKUP-RESTORE-MOUNT-MULTI-PATHS",
    "STOR-VSS-BACKUP-RESTORE-MOUNT-MULTI-PATHS",
    "VSS-BACKUP-RESTORE-MOUNT-SQUASHFS",
    "STOR-VSS-BACKUP-RESTORE-MOUNT-SQUASHFS",
    "VSS-BACKUP-CHANGE-HYPERVVSSD",
    "STOR-VSS-BACKUP-CHANGE-HYPERVVSSD",
    "VSS-BACKUP-RESTORE-DISKSTRESS",
    "STOR-VSS-BACKUP-RESTORE-DISKSTRESS",
    "VSS-BACKUP-DISABLE-ENABLE-VSS",
    "STOR-VSS-BACKUP-DISABLE-ENABLE-VSS",
    "VSS-BACKUP-RESTORE-FAIL",
    "STOR-VSS-BACKUP-RESTORE-FAIL",
    "SECUREBOOT-VSS",
    "PRODUCTION-CHECKPOINT",
    "PRODUCTION-CHECKPOINT-FAILBACK",
    "PRODUCTION-CHECKPOINT-EXT4",
    "PRODUCTION-CHECKPOINT-BTRFS",
    "PRODUCTION-CHECKPOINT-IDE_SCSI",
    "PRODUCTION-CHECKPOINT-VHDX_XFS",
    "PRODUCTION-CHECKPOINT-ISO-NONETWORK",
    "PRODUCTION-CHECKPOINT-3CHAIN-VHD",
    "PRODUCTION-CHECKPOINT-iSCSI",
    "CHECK-HYPERVDAEMONS-FILES-STATUS",
    "VERIFY-BOOT-ERROR-WARNINGS",
    "RELOAD-MODULES-SMP",
    "STRESSTEST-RELOAD-LIS-MODULES",
];

/// Those of LISA, version 3: methods.
const LISA: [&str; 5] = [
    "verify_boot_error_fail_warnings",
    "verify_reload_hyperv_modules",
    "verify_hv_kvp_daemon_installed",
    "verify_vmsnapshot_extension",
    "verify_exclude_disk_support_restore_point",
];

/// What a cell says where nothing was run.
const NOTHING: &str = "–";

/// What it says while a scenario has yet to be seen.
const OPEN: &str = "open";

/// A case, or several that are one.
#[derive(Debug)]
struct Row {
    cases: Vec<String>,
    scenarios: Vec<String>,
    /// For hv-vssd, and for the C daemon.
    results: [String; 2],
    left: String,
}

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What stands between back-quotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(ToOwned::to_owned)
        .collect()
}

/// The rows of the tables of cases: those with six cells.
fn rows() -> Vec<Row> {
    let text = text("docs/compliance.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 6, "{line}");
        Row {
            cases: quoted(cells[0]),
            scenarios: quoted(cells[2]),
            results: [cells[3].to_owned(), cells[4].to_owned()],
            left: cells[5].to_owned(),
        }
    })
    .collect()
}

/// The names of the scenarios in the programs of the test bed.
fn scenarios() -> BTreeSet<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
    let files = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let sources = files.filter(|path: &PathBuf| path.extension().is_some_and(|end| end == "rs"));
    let mut names = BTreeSet::new();
    for source in sources {
        for line in fs::read_to_string(source).unwrap().lines() {
            let function = line.trim_start().strip_prefix("fn ");
            if let Some((name, _)) = function.and_then(|rest| rest.split_once("(bed) {")) {
                names.insert(name.to_owned());
            }
        }
    }
    assert!(names.len() > 50, "{names:?}");
    names
}

/// What docs/scenarios.md says of a scenario: for hv-vssd, and for the C daemon. One that it does not have yet, or not of both kernels, is open.
fn seen(table: &str, scenario: &str) -> [&'static str; 2] {
    let name = format!("| **{}**: ", scenario.replace('_', " "));
    let Some(line) = table.lines().find(|line| line.contains(&name)) else {
        return [OPEN, OPEN];
    };
    let cells: Vec<&str> = line.trim_end_matches(" |").rsplitn(3, " | ").collect();
    [cells[1], cells[0]].map(|cell| match cell {
        _ if cell.contains("**no**") => "no",
        _ if cell.contains("not run") || cell.contains("*not judged*") => OPEN,
        _ if cell.contains("yes") => "yes",
        _ => panic!("{scenario}: {cell}"),
    })
}

#[test]
fn every_case_has_its_row() {
    let mut listed = BTreeSet::new();
    for case in rows().into_iter().flat_map(|row| row.cases) {
        assert!(listed.insert(case.clone()), "{case} stands in two rows");
    }
    let known: BTreeSet<String> = [&LIS_TEST[..], &LISA_V2, &LISA]
        .concat()
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    let missing: Vec<_> = known.difference(&listed).collect();
    assert!(missing.is_empty(), "cases without a row: {missing:?}");
    let strange: Vec<_> = listed.difference(&known).collect();
    assert!(strange.is_empty(), "no suite has these cases: {strange:?}");
}

#[test]
fn every_scenario_that_is_named_exists() {
    let scenarios = scenarios();
    for row in rows() {
        for name in &row.scenarios {
            assert!(
                scenarios.contains(name),
                "{:?}: no scenario {name}",
                row.cases
            );
        }
    }
}

#[test]
fn results_are_those_that_were_seen() {
    let table = text("docs/scenarios.md");
    for row in rows() {
        let seen: Vec<_> = row
            .scenarios
            .iter()
            .map(|name| seen(&table, name))
            .collect();
        for (agent, said) in row.results.iter().enumerate() {
            // A remark may follow.
            let word = said.split(' ').next().unwrap();
            let has = |word: &str| seen.iter().any(|both| both[agent] == word);
            let expected = match () {
                () if seen.is_empty() => NOTHING,
                () if has("no") => "no",
                () if has(OPEN) => OPEN,
                () => "yes",
            };
            assert_eq!(word, expected, "{:?}: {:?}", row.cases, row.scenarios);
        }
    }
}

#[test]
fn a_case_that_was_not_run_says_why() {
    for row in rows() {
        assert!(!row.left.is_empty(), "{:?}", row.cases);
        assert!(
            !row.scenarios.is_empty() || row.results == [NOTHING, NOTHING],
            "{:?}",
            row.cases
        );
    }
}
