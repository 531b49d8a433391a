use super::*;

#[test]
fn a_long_path_loses_its_middle_only() {
    assert_eq!(shorten("/short".into(), false), "/short");
    let long = format!("/var/lib/{}/merged", "x".repeat(64));
    let short = shorten(long.clone(), false);
    assert_eq!(short.chars().count(), WIDEST);
    assert!(short.starts_with("/var/lib/xxx…") && short.ends_with("/merged"));
    assert_eq!(shorten(long.clone(), true), long);
}

#[test]
fn an_empty_plan_says_so() {
    assert_eq!(
        render_table(&Plan::default(), false),
        "Nothing is frozen: no writable local file system can be.\n"
    );
}

#[test]
fn columns_are_aligned_by_characters() {
    let mut out = String::new();
    columns(
        &mut out,
        ["A", "B"],
        &[["ä".into(), "1".into()], ["bb".into(), "2".into()]],
    );
    assert_eq!(out, "  A   B\n  ä   1\n  bb  2\n");
}
