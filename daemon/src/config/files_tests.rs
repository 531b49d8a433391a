use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// A directory with `config.toml`, and its sources.
fn place() -> (tempfile::TempDir, Sources) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    fs::write(&file, "# main\n").unwrap();
    let sources = Sources::new(Some(&file));
    (directory, sources)
}

fn names(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths
        .into_iter()
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// What is wrong with the sources, without the paths.
fn wrong(sources: &Sources) -> Vec<String> {
    let problems = read(sources).problems;
    problems
        .into_iter()
        .map(|problem| problem.message)
        .collect()
}

fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn drop_ins_come_in_the_order_of_their_names_after_the_file() {
    let (_directory, sources) = place();
    fs::create_dir(sources.directory()).unwrap();
    for name in ["b.toml", "10.toml", "2.toml", "a.toml"] {
        fs::write(sources.directory().join(name), "").unwrap();
    }
    let found = read(&sources);
    let texts = found.texts.into_iter().map(|text| text.path);
    assert_eq!(
        names(texts),
        ["config.toml", "10.toml", "2.toml", "a.toml", "b.toml"]
    );
}

#[test]
fn what_an_editor_or_a_package_leaves_there_is_no_drop_in() {
    let (_directory, sources) = place();
    fs::create_dir(sources.directory()).unwrap();
    for name in ["a.toml~", ".a.toml", "a.toml.dpkg-new", "README"] {
        fs::write(sources.directory().join(name), "= nonsense").unwrap();
    }
    fs::create_dir(sources.directory().join("more")).unwrap();
    let found = read(&sources);
    assert_eq!(found.texts.len(), 1);
    assert_eq!(
        names(found.ignored),
        [".a.toml", "README", "a.toml.dpkg-new", "a.toml~", "more"]
    );
    assert_eq!(found.problems, []);
}

#[test]
fn neither_the_default_file_nor_a_directory_need_exist_but_a_named_file_must() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let mut sources = Sources::new(Some(&file));
    assert_eq!(wrong(&sources), ["cannot be read: it does not exist"]);
    sources.required = false;
    assert!(wrong(&sources).is_empty());
    assert_eq!(Sources::new(None).file, Path::new(DEFAULT_PATH));
    assert!(!Sources::new(None).required);
}

#[test]
fn a_link_to_dev_null_puts_a_drop_in_out_of_force_and_one_to_nowhere_is_an_error() {
    let (_directory, sources) = place();
    fs::create_dir(sources.directory()).unwrap();
    symlink("/dev/null", sources.directory().join("10-off.toml")).unwrap();
    assert!(wrong(&sources).is_empty());
    symlink("/nonexistent", sources.directory().join("20.toml")).unwrap();
    assert_eq!(
        wrong(&sources),
        ["is a symbolic link to what does not exist"]
    );
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    let (_directory, sources) = place();
    fs::create_dir(sources.directory()).unwrap();
    let pipe = sources.directory().join("pipe.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(sources.directory().join("z.toml")).unwrap();
    symlink("/dev/zero", sources.directory().join("zero.toml")).unwrap();
    assert_eq!(wrong(&sources), ["is not a regular file"; 3]);
}

#[test]
fn a_directory_of_drop_ins_that_is_none_is_an_error() {
    let (_directory, sources) = place();
    fs::write(sources.directory(), "").unwrap();
    let wrong = wrong(&sources);
    assert!(wrong[0].starts_with("cannot be read: "), "{wrong:?}");
}

#[test]
fn what_others_can_write_is_refused_and_the_remedy_named() {
    assert!(root(), "this test needs root");
    let (_directory, sources) = place();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&sources.file, 0o646);
    let told = wrong(&sources);
    assert!(
        told[0].starts_with("can be written by others than root (mode 646): chmod go-w"),
        "{told:?}"
    );
    mode(&sources.file, 0o664);
    assert!(wrong(&sources).is_empty(), "the group root is root");
    std::os::unix::fs::chown(&sources.file, Some(0), Some(1)).unwrap();
    assert_eq!(wrong(&sources).len(), 1);
    std::os::unix::fs::chown(&sources.file, Some(1), Some(0)).unwrap();
    mode(&sources.file, 0o600);
    assert!(wrong(&sources)[0].starts_with("belongs to user 1, and must belong to root"));
    std::os::unix::fs::chown(&sources.file, Some(0), Some(0)).unwrap();
    assert!(wrong(&sources).is_empty());
    // Whoever can write the directory can put a file there.
    fs::create_dir(sources.directory()).unwrap();
    mode(&sources.directory(), 0o777);
    assert_eq!(wrong(&sources).len(), 1);
    // A link says nothing about what it leads to.
    mode(&sources.directory(), 0o755);
    let elsewhere = sources.file.with_file_name("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    symlink(&elsewhere, sources.directory().join("a.toml")).unwrap();
    assert!(wrong(&sources).is_empty());
    mode(&elsewhere, 0o666);
    assert_eq!(wrong(&sources).len(), 1);
}

#[test]
fn what_is_no_text_or_endless_is_refused() {
    let (_directory, sources) = place();
    fs::write(&sources.file, b"\xff\xfe\x00").unwrap();
    assert_eq!(wrong(&sources), ["is not text in UTF-8"]);
    fs::write(&sources.file, "#".repeat(300 * 1024)).unwrap();
    let told = wrong(&sources);
    assert!(told[0].contains("larger than 256 KiB"), "{told:?}");
}
