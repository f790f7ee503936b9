//! What the pages of the documentation say that a program can check: limits parse and are printed as they stand
//! there, settings exist, links lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use shared::domain::Limit;
use toml::{Table, Value};

use crate::support::daemon::repository;
use crate::support::page::{Row, code_spans, column, read, rows};

/// Pages that have limits in the tables' column `limit`.
const PAGES_OF_LIMITS: [&str; 2] = ["docs/limits.md", "docs/from-crs.md"];
const LIMIT: &str = "limit";
const ALSO_WRITTEN: &str = "also written";
/// Flags that take a limit.
const FLAGS: [&str; 2] = ["--limit ", "--add-limit "];

/// The README and everything in `docs`, as paths from the repository's folder.
fn pages() -> Vec<String> {
    let in_docs = fs::read_dir(repository().join("docs")).unwrap().map(|page| page.unwrap().file_name());
    let in_docs = in_docs.map(|name| format!("docs/{}", name.to_str().unwrap()));
    in_docs.chain(["README.md".to_owned()]).collect()
}

fn limit(page: &str, text: &str) -> Limit {
    text.parse().unwrap_or_else(|error| panic!("{page}: {text}: {error}"))
}

#[track_caller]
fn prints_as_it_stands(page: &str, text: &str) {
    assert_eq!(limit(page, text).to_string(), text, "{page}");
}

#[test]
fn limits_in_tables_are_printed_as_they_stand() {
    for page in PAGES_OF_LIMITS {
        let text = read(page);
        let mut count = 0;
        for row in &rows(&text) {
            let limits = column(row, LIMIT);
            limits.iter().for_each(|text| prints_as_it_stands(page, text));
            for other in column(row, ALSO_WRITTEN) {
                assert_eq!(limit(page, other).to_string(), limits[0], "{page}: {other}");
            }
            count += limits.len();
        }
        assert!(count >= 10, "{page} has {count} limits in tables");
    }
}

#[test]
fn whatever_looks_like_a_limit_is_one() {
    for page in PAGES_OF_LIMITS {
        let text = read(page);
        let begins = |span: &&str| span.starts_with(|first: char| first == '$' || first.is_ascii_digit());
        code_spans(&text).into_iter().filter(|span| begins(span) && span.contains(' ')).for_each(|span| {
            limit(page, span);
        });
    }
}

#[test]
fn limits_in_commands_are_printed_as_they_stand() {
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for after in FLAGS.iter().flat_map(|flag| text.split(flag).skip(1)) {
            let Some(quote) = after.chars().next().filter(|first| ['"', '\''].contains(first)) else {
                continue;
            };
            let given = after[1..].split(quote).next().unwrap();
            assert!(quote == '\'' || !given.contains('$'), "{page}: a shell reads {given} as a variable");
            prints_as_it_stands(&page, given);
            count += 1;
        }
    }
    assert!(count >= 5, "{count} limits in commands");
}

fn example() -> Table {
    read("config.example.toml").parse().unwrap()
}

#[test]
fn every_setting_of_limits_and_rates_is_told_with_its_default() {
    let text = read("docs/limits.md");
    let rows = rows(&text);
    let example = example();
    for section in ["limits", "rates"] {
        for (key, default) in example[section].as_table().unwrap() {
            let setting = format!("{section}.{key}");
            let is_told = |row: &&Row<'_>| column(row, "setting") == [setting.as_str()];
            let row = rows.iter().find(is_told).unwrap_or_else(|| panic!("{setting} is not told"));
            assert_eq!(column(row, "default"), [default.to_string()], "{setting}");
        }
    }
}

/// What files' names end with that begin like settings.
const ENDINGS: [&str; 3] = ["rs", "redb", "toml"];

/// The settings that code names: `section.key`, maybe with a value.
fn settings_in<'a>(spans: &[&'a str], example: &Table) -> BTreeSet<(&'a str, &'a str)> {
    let named = spans.iter().filter_map(|span| span.split(" = ").next()?.split_once('.'));
    let is_setting = |(section, key): &(&str, &str)| {
        example.get(*section).is_some_and(Value::is_table)
            && !ENDINGS.contains(key)
            && key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
    };
    named.filter(is_setting).collect()
}

#[test]
fn settings_that_pages_name_exist() {
    let example = example();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for (section, key) in settings_in(&code_spans(&text), &example) {
            assert!(example[section].get(key).is_some(), "{page}: there is no {section}.{key}");
            count += 1;
        }
    }
    assert!(count >= 40, "{count} settings are named");
}

/// The addresses of links within the repository.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let in_prose = text.split("```").step_by(2);
    let links = in_prose.flat_map(|prose| prose.split("](").skip(1));
    let links = links.filter_map(|after| after.split(')').next());
    links.filter(|link| !link.contains("://"))
}

/// What a heading is called in links: its words in lower case, without punctuation.
fn anchor(heading: &str) -> String {
    let is_kept = |char: &char| char.is_alphanumeric() || [' ', '-', '_'].contains(char);
    heading.to_lowercase().chars().filter(is_kept).map(|char| if char == ' ' { '-' } else { char }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let in_prose = text.split("```").step_by(2);
    let headings = in_prose.flat_map(str::lines).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// The file that a link on a page leads to.
fn target(page: &str, path: &str) -> PathBuf {
    let page = Path::new(page);
    if path.is_empty() { page.to_owned() } else { page.parent().unwrap().join(path) }
}

#[test]
fn links_lead_somewhere() {
    for page in pages() {
        for link in links(&read(&page)) {
            let (path, wanted) = link.split_once('#').unwrap_or((link, ""));
            let file = target(&page, path);
            assert!(repository().join(&file).exists(), "{page}: {link}");
            if !wanted.is_empty() {
                let found = anchors(&read(file.to_str().unwrap()));
                assert!(found.contains(wanted), "{page}: {link} is none of {found:?}");
            }
        }
    }
}
