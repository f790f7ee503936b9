//! The import directions and the rules of style that a program can check, held as data.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::daemon::repository;

const PURE: [&str; 8] =
    ["protocol", "pricing", "limits", "scheduler", "provider", "percent", "causes", "near"];
/// Modules with I/O that import nothing of ours but plain values; closed to pure code and to each other.
const LEAVES: [&str; 5] = ["store", "config", "clock", "keyfile", "logging"];
/// Modules that put the parts together: they import everything, and only each other import them.
const ASSEMBLY: [&str; 7] = ["check", "daemon", "workers", "jobs", "budgets", "lib", "main"];

/// What the admin API may import, one row resting on those above it: what a request's path may, what puts right what
/// that left, and what moves the store.
const BELOW_ADMIN: &[&str] = &[
    "protocol",
    "pricing",
    "limits",
    "scheduler",
    "provider",
    "percent",
    "causes",
    "near",
    "events",
    "simulator",
    "directory",
    "auth",
    "upstream",
    "ledger",
    "rebuild",
    "migrate",
];

/// What the parts of a request's path may import: all of that but the last two.
const BELOW_RELAY: &[&str] = BELOW_ADMIN.split_at(BELOW_ADMIN.len() - 2).0;

/// What a module of `relayd` may import besides itself. The leaves are left out on the right: they are open to
/// everything that is not closed to them.
const IMPORTS: [(&str, &[&str]); 24] = [
    ("protocol", &[]),
    ("pricing", &[]),
    ("limits", &[]),
    ("scheduler", &[]),
    ("percent", &[]),
    ("causes", &[]),
    ("near", &[]),
    ("events", &[]),
    // What a reply means for its account is said in the scheduler's words.
    ("provider", &["protocol", "scheduler", "percent"]),
    // The names of counters, which are plain values.
    ("store", &["limits", "causes"]),
    // What a mistyped setting may mean.
    ("config", &["near"]),
    ("clock", &[]),
    ("keyfile", &[]),
    ("logging", &[]),
    ("simulator", &["protocol"]),
    ("directory", &["limits", "scheduler", "provider", "pricing", "causes"]),
    ("auth", &["directory", "percent"]),
    ("upstream", &["provider", "protocol", "simulator"]),
    ("ledger", &["pricing", "causes"]),
    // Rows and what they add up to.
    ("rebuild", &["pricing"]),
    // Everything stands still for a moment: records, the journal, admission.
    ("migrate", &["causes", "directory", "ledger"]),
    ("relay", BELOW_RELAY),
    ("admin", BELOW_ADMIN),
    (
        "server",
        &[
            "protocol",
            "pricing",
            "limits",
            "scheduler",
            "provider",
            "percent",
            "near",
            "simulator",
            "directory",
            "auth",
            "upstream",
            "ledger",
            "relay",
        ],
    ),
];

/// What the parts of `relayctl` may import besides themselves: one row rests on those above it.
const CONTROL_PARTS: [(&str, &[&str]); 16] = [
    ("format", &[]),
    ("when", &[]),
    ("args", &[]),
    ("place", &[]),
    ("client", &[]),
    ("process", &[]),
    ("failure", &["client", "format"]),
    ("output", &["failure", "format"]),
    ("prompt", &["failure"]),
    ("secret", &["failure"]),
    ("program", &["failure"]),
    ("stopping", &["client", "failure", "format", "output", "process", "prompt"]),
    ("limits", &["args", "format", "output"]),
    ("account_table", &["format", "limits", "output"]),
    ("ctl", &["client", "output", "place", "prompt"]),
    // It knows the flags of every command.
    ("cli", &["output", "place"]),
];
/// The commands of `relayctl`: they rest on the parts but `cli`, and know nothing of each other.
const COMMANDS: [&str; 11] = [
    "account",
    "budget",
    "config",
    "costs",
    "daemon",
    "explain",
    "key",
    "pricing",
    "quickstart",
    "store",
    "usage",
];

/// What pure code has no business with.
const IMPURE: [&str; 10] = [
    "tokio",
    "tracing",
    "hyper",
    "getrandom",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant::now",
    "SystemTime",
    ".await",
];

#[derive(Debug)]
struct Source {
    /// Path under `src`, with slashes.
    name: String,
    /// The top module it belongs to.
    top: String,
    /// Number of modules above its items, itself included.
    depth: usize,
    /// The text without comments and literals.
    code: String,
    raw: String,
}

impl Source {
    /// Whether it is a file, or in a folder, of tests: there a panic is how a failure is told.
    fn is_test(&self) -> bool {
        self.name.split('/').any(|part| part == "tests" || part == "contract")
    }
}

fn sources(package: &str) -> Vec<Source> {
    let root = repository().join(package).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(!files.is_empty(), "no sources in {}", root.display());
    files.sort();
    files.iter().map(|file| source(&root, file)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn source(root: &Path, file: &Path) -> Source {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let mut modules: Vec<String> =
        path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let name = modules.join("/");
    modules.retain(|module| module != "mod");
    let raw = fs::read_to_string(file).unwrap();
    Source { top: modules[0].clone(), depth: modules.len(), name, code: stripped(&raw), raw }
}

/// The code without comments, and with literals emptied.
fn stripped(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = raw_literal(rest) {
            length
        } else if first == '"' {
            literal(rest, '"')
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\'") {
            literal(rest, '\'')
        } else {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn literal(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => drop(chars.next()),
            _ if char == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_literal(text: &str) -> Option<usize> {
    let hashes = text.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    let body = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    Some(1 + count + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// Names that a source reaches through `crate::` or enough `super::`; those that are modules are imports.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in source.code.match_indices("crate::") {
        let before = source.code[..at].chars().next_back();
        if !before.is_some_and(|char| char.is_alphanumeric() || char == '_') {
            found.extend(heads(&source.code[at + "crate::".len()..]));
        }
    }
    let to_the_root = "super::".repeat(source.depth);
    for (at, _) in source.code.match_indices(&to_the_root) {
        found.extend(heads(&source.code[at + to_the_root.len()..]));
    }
    found.remove(&source.top);
    found
}

/// The top modules that the tables know.
fn modules() -> impl Iterator<Item = &'static str> {
    IMPORTS.iter().map(|(module, _)| *module).chain(ASSEMBLY)
}

/// The first names of a path, or of each path in a group.
fn heads(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else { return vec![first_name(path)] };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, char) in group.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(first_name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

#[test]
fn the_scanner_finds_what_it_looks_for() {
    let text = r##"
        //! crate::relay is only told of here
        use crate::{auth::Principal, store::{self, Store}, limits};
        fn f() { super::super::server::run(); let s = "crate::admin"; let r = r#"crate::ledger"#; crate::clock::now() }
    "##;
    let source = Source {
        name: "upstream/pool".to_owned(),
        top: "upstream".to_owned(),
        depth: 2,
        code: stripped(text),
        raw: text.to_owned(),
    };
    let expected = ["auth", "clock", "limits", "server", "store"];
    assert_eq!(imports(&source).iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn the_commands_do_not_know_each_other() {
    let parts = || CONTROL_PARTS.iter().map(|(part, _)| *part);
    let known: BTreeSet<&str> = parts().chain(COMMANDS).chain(["lib", "main"]).collect();
    let all = sources("relayctl");
    let exist: BTreeSet<&str> = all.iter().map(|source| source.top.as_str()).collect();
    assert_eq!(exist, known, "the table does not fit");
    for (row, (part, allowed)) in CONTROL_PARTS.iter().enumerate() {
        let is_above = |name: &&str| CONTROL_PARTS[..row].iter().any(|(above, _)| above == name);
        assert!(allowed.iter().all(is_above), "{part} does not rest on what is above it");
    }
    let is_allowed = |top: &str, import: &str| match CONTROL_PARTS.iter().find(|(part, _)| *part == top) {
        Some((part, allowed)) => allowed.contains(&import) || (*part == "cli" && COMMANDS.contains(&import)),
        None => parts().any(|part| part == import && part != "cli"),
    };
    let mut wrong = Vec::new();
    for source in all.iter().filter(|source| !["lib", "main"].contains(&source.top.as_str())) {
        // What hides behind no module's name would be an item of the root; `super::*` of a test names nothing.
        for import in imports(source).into_iter().filter(|name| !name.is_empty()) {
            if !is_allowed(&source.top, &import) {
                wrong.push(format!("{} imports {import}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_point_up_the_table() {
    let mut wrong = Vec::new();
    for source in sources("relayd") {
        if ASSEMBLY.contains(&source.top.as_str()) {
            continue;
        }
        let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == source.top) else {
            wrong.push(format!("{}: the table does not know this module", source.name));
            continue;
        };
        let is_closed = PURE.contains(&source.top.as_str()) || LEAVES.contains(&source.top.as_str());
        let is_module = |name: &String| modules().any(|module| module == name);
        for import in imports(&source).into_iter().filter(is_module) {
            let is_open_leaf = LEAVES.contains(&import.as_str()) && !is_closed;
            if !is_open_leaf && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{} imports {import}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_names_what_exists() {
    let tops: BTreeSet<String> = sources("relayd").into_iter().map(|source| source.top).collect();
    let gone: Vec<&str> = modules().filter(|module| !tops.contains(*module)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn pure_code_is_pure() {
    let mut wrong = Vec::new();
    for source in sources("relayd").iter().filter(|source| PURE.contains(&source.top.as_str())) {
        for word in IMPURE.iter().filter(|word| contains_word(&source.code, word)) {
            wrong.push(format!("{} has {word}", source.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn contains_word(code: &str, word: &str) -> bool {
    let is_part = |char: char| char.is_alphanumeric() || char == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(is_part)
            && !code[at + word.len()..].chars().next().is_some_and(is_part)
    })
}

#[test]
fn vendors_do_not_import_vendors() {
    let all = sources("relayd");
    let vendor = |source: &Source| {
        let rest = source.name.strip_prefix("provider/")?;
        let name = rest.split('/').next()?;
        (name != "mod" && source.depth > 1).then(|| name.to_owned())
    };
    let vendors: BTreeSet<String> = all.iter().filter_map(vendor).collect();
    let mut wrong = Vec::new();
    for source in &all {
        let Some(own) = vendor(source) else { continue };
        for other in vendors.iter().filter(|other| **other != own) {
            let paths = [format!("provider::{other}"), format!("super::{other}::")];
            if paths.iter().any(|path| contains_word(&source.code, path)) {
                wrong.push(format!("{} imports {other}", source.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_the_clock_reads_the_clock() {
    let readers = ["SystemTime::now", "jiff::Timestamp::now", "Zoned::now"];
    let all = sources("relayd");
    let others = all.iter().filter(|source| source.top != "clock" && source.top != "main");
    let wrong: Vec<&str> = others
        .filter(|source| readers.iter().any(|reader| source.code.contains(reader)))
        .map(|source| source.name.as_str())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_control_program_does_not_know_the_daemon() {
    let manifest = fs::read_to_string(repository().join("relayctl/Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|line| line.starts_with("relayd")));
    let manifest = fs::read_to_string(repository().join("shared/Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|line| line.starts_with("relay")));
}

/// The files of the same folder that a file imports.
fn siblings<'a>(source: &Source, folder: &'a [Source]) -> Vec<&'a str> {
    let code = without_tests(&source.code);
    let mut names: Vec<String> = Vec::new();
    for (at, _) in code.match_indices("super::") {
        names.extend(heads(&code[at + "super::".len()..]));
    }
    let files = folder.iter().map(|file| file.name.as_str());
    files.filter(|file| names.iter().any(|name| file.rsplit('/').next() == Some(name))).collect()
}

/// What is left of a folder's files when those that import nothing of the rest are taken out, again and again.
fn circles(folder: &[Source]) -> Vec<&str> {
    let mut left: Vec<&Source> = folder.iter().collect();
    loop {
        let rests = |source: &&Source| {
            siblings(source, folder).iter().any(|name| left.iter().any(|other| other.name == *name))
        };
        let stuck: Vec<&Source> = left.iter().copied().filter(rests).collect();
        if stuck.len() == left.len() {
            return left.iter().map(|source| source.name.as_str()).collect();
        }
        left = stuck;
    }
}

#[test]
fn the_files_of_a_folder_rest_on_each_other_in_one_direction() {
    for (package, folder) in [("relayd", "simulator/"), ("relayctl", "account/"), ("relayctl", "quickstart/")]
    {
        let mut files = sources(package);
        files.retain(|source| source.name.starts_with(folder) && !source.is_test());
        assert!(files.len() > 2, "no files in {folder}");
        assert_eq!(circles(&files), [] as [&str; 0], "{folder} has circles");
    }
}

/// The code before the first test module.
fn without_tests(code: &str) -> &str {
    code.find("#[cfg(test)]\nmod ").map_or(code, |at| &code[..at])
}

#[test]
fn nothing_is_allowed_left_undone_or_unwrapped() {
    let anywhere = ["#[allow(", "#![allow(", "todo!", "unimplemented!", "dbg!"];
    let outside_tests = [".unwrap()", ".expect(", "panic!", "unreachable!"];
    let mut wrong = Vec::new();
    for package in ["relayd", "relayctl", "shared"] {
        for source in sources(package) {
            let code = if source.is_test() { "" } else { without_tests(&source.code) };
            let found = anywhere.iter().filter(|word| source.code.contains(*word));
            let found = found.chain(outside_tests.iter().filter(|word| code.contains(*word)));
            wrong.extend(found.map(|word| format!("{package}/{} has {word}", source.name)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_and_notes_keep_to_the_house_words() {
    let file_names = ["util", "utils", "helper", "helpers", "common", "misc", "info", "manager", "types"];
    let endings = ["Manager", "Helper", "Util", "Utils", "Info"];
    let notes = ["TODO", "FIXME", "XXX", "HACK", "downstream", "Downstream"];
    let mut wrong = Vec::new();
    for package in ["relayd", "relayctl", "shared"] {
        for source in sources(package) {
            let place = format!("{package}/{}", source.name);
            if source.name.split('/').any(|part| file_names.contains(&part)) {
                wrong.push(format!("{place} is named after nothing"));
            }
            if !source.is_test() && !source.raw.starts_with("//!") {
                wrong.push(format!("{place} does not open with what it answers for"));
            }
            for note in notes.iter().filter(|note| contains_word(&source.raw, note)) {
                wrong.push(format!("{place} has {note}"));
            }
            let words =
                source.code.split(|char: char| !char.is_alphanumeric() && char != '_').collect::<Vec<_>>();
            for pair in words.windows(2).filter(|pair| ["struct", "enum", "trait"].contains(&pair[0])) {
                if endings.iter().any(|ending| pair[1].ends_with(ending)) {
                    wrong.push(format!("{place} has a type {}", pair[1]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
