//! The manual pages, made from the definition of the command line and from the list of configuration keys.

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use hv_vssd::cli::{Arguments, EXIT_STATUSES};
use hv_vssd::config::keys::{BY_NAME, KEYS, Key, SECTIONS, Section};
use hv_vssd::config::{Config, DEFAULT_PATH};

/// Files that all commands have to do with.
const FILES: [(&str, &str); 5] = [
    (DEFAULT_PATH, "The configuration; see hv-vssd.toml(5)."),
    (
        "/etc/hv-vssd/hooks.d, /usr/lib/hv-vssd/hooks.d",
        "Hooks, called with \"freeze\" before a freeze and with \"thaw\" after the thaw.",
    ),
    (
        "/run/hv-vssd/ledger",
        "What is frozen now, for the next start to thaw; there from the freeze to the thaw.",
    ),
    ("/run/hv-vssd/lock", "Held by a running agent."),
    (
        "/dev/vmbus/hv_vss",
        "The driver's device, there while the host offers its backup service.",
    ),
];

/// The command line without what is hidden.
pub(crate) fn command_line() -> Command {
    let all = Arguments::command();
    let shown = all
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    Command::new("hv-vssd")
        .version(env!("CARGO_PKG_VERSION"))
        .about(all.get_about().unwrap().clone())
        .subcommand_required(true)
        .subcommand_value_name("COMMAND")
        .subcommands(shown.cloned())
}

/// The same, and its commands, each as it is used.
pub(crate) fn commands() -> (Command, Vec<Command>) {
    let mut top = command_line();
    top.build();
    let all = top.get_subcommands();
    let commands = all.filter(|command| command.get_name() != "help");
    let commands = commands.cloned().collect();
    (top, commands)
}

/// The names of all pages, and their texts.
pub(crate) fn pages() -> Vec<(String, String)> {
    let (top, commands) = commands();
    let mut pages = vec![("hv-vssd.8".to_owned(), top_page(&top, &commands))];
    for command in &commands {
        pages.push((
            format!("hv-vssd-{}.8", command.get_name()),
            command_page(command),
        ));
    }
    pages.push(("hv-vssd.toml.5".to_owned(), configuration_page()));
    pages
}

/// Without a date: a page is as old as its version.
fn title(name: &str, section: u8, manual: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(".TH {name} {section} \"\" \"hv-vssd {version}\" \"{manual}\"\n")
}

const COMMANDS: &str = "System Manager's Manual";

/// Parts of a page that clap_mangen writes.
type Part = fn(&Man, &mut dyn std::io::Write) -> std::io::Result<()>;

fn parts(command: &Command, parts: &[Part]) -> String {
    let man = Man::new(command.clone());
    let name = command.get_display_name().unwrap_or("hv-vssd");
    let mut out = title(name, 8, COMMANDS).into_bytes();
    for part in parts {
        part(&man, &mut out).unwrap();
    }
    String::from_utf8(out).unwrap()
}

fn top_page(top: &Command, commands: &[Command]) -> String {
    let mut page = parts(
        top,
        &[
            Man::render_name_section,
            Man::render_synopsis_section,
            Man::render_description_section,
        ],
    );
    let mut rest = Roff::new();
    rest.control("SH", ["COMMANDS"]);
    for command in commands {
        rest.control("TP", []);
        rest.text([bold(format!("hv-vssd-{}(8)", command.get_name()))]);
        rest.text([roman(command.get_about().unwrap().to_string())]);
    }
    exit_status(&mut rest);
    rest.control("SH", ["FILES"]);
    for (file, what) in FILES {
        rest.control("TP", []);
        rest.text([italic(file)]);
        rest.text([roman(what)]);
    }
    see_also(&mut rest, "hv-vssd.toml(5), fsfreeze(8), systemctl(1)");
    page += &rest.render();
    page
}

fn command_page(command: &Command) -> String {
    let mut page = parts(
        command,
        &[
            Man::render_name_section,
            Man::render_synopsis_section,
            Man::render_description_section,
            Man::render_options_section,
        ],
    );
    let mut rest = Roff::new();
    exit_status(&mut rest);
    see_also(&mut rest, "hv-vssd(8), hv-vssd.toml(5)");
    page += &rest.render();
    page
}

fn exit_status(page: &mut Roff) {
    page.control("SH", ["EXIT STATUS"]);
    for (status, meaning) in EXIT_STATUSES {
        page.control("TP", []);
        page.text([bold(status.to_string())]);
        page.text([roman(meaning)]);
    }
}

fn see_also(page: &mut Roff, what: &str) {
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(what)]);
}

fn configuration_page() -> String {
    let mut page = Roff::new();
    page.control("SH", ["NAME"]);
    page.text([roman("hv-vssd.toml - configuration of hv-vssd(8)")]);
    page.control("SH", ["SYNOPSIS"]);
    page.text([italic(DEFAULT_PATH)]);
    page.control("br", []);
    page.text([italic(format!("{DEFAULT_PATH}.d/*.toml"))]);
    page.control("SH", ["DESCRIPTION"]);
    for text in [
        "TOML. None of the files must exist, and every key is optional. The drop-ins are read after the file, in the order of their names; the last file that sets a key wins, key by key, and a list replaces the one before.",
        "Files, and the directory of the drop-ins, that others than root can write are refused; so is an unknown key, or a value out of bounds. `hv-vssd config --check` tells all that is wrong, `hv-vssd config` what is in force, and where it is set. After a change: `systemctl reload hv-vssd`.",
    ] {
        page.control("PP", []);
        page.text(inlines(text));
    }
    for section in SECTIONS {
        section_of(&mut page, section);
    }
    see_also(&mut page, "hv-vssd(8), hv-vssd-config(8), hv-vssd-plan(8)");
    title("hv-vssd.toml", 5, "File Formats Manual") + &page.render()
}

fn section_of(page: &mut Roff, section: &Section) {
    let title = match section.name {
        "" => "KEYS ABOVE THE FIRST SECTION".to_owned(),
        BY_NAME => "[hooks.by_name.\"NAME\"]".to_owned(),
        name => format!("[{name}]"),
    };
    page.control("SH", [title.as_str()]);
    let about = format!("{} {}", section.intro, section.detail);
    if !about.trim().is_empty() {
        page.text(inlines(about.trim()));
    }
    for key in KEYS.iter().filter(|key| key.section == section.name) {
        page.control("TP", []);
        page.text([bold(key.name)]);
        page.text([roman(format!("Takes {}; {}.", key.kind, default(key)))]);
        page.control("br", []);
        let about = format!("{} {}", key.summary, key.detail);
        page.text(inlines(about.trim()));
    }
}

fn default(key: &Key) -> String {
    match key.get(&Config::default(), "") {
        Some(value) => format!("default {value}"),
        None => "no default".to_owned(),
    }
}

/// Markdown's code in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts
        .map(|(index, part)| {
            if index % 2 == 1 {
                bold(part)
            } else {
                roman(part)
            }
        })
        .collect()
}
