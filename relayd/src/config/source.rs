//! Where settings come from: the entries of a TOML file and of the environment, each with its place.

use std::path::Path;

use toml::de::DeTable;
use toml::{Table, Value};

use super::error::{ConfigError, Place};
use crate::near::nearest;

/// What the names of environment variables that make settings begin with.
const VARIABLE_PREFIX: &str = "RELAYD__";

/// One setting as somebody made it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The section.
    pub(super) section: String,
    /// The setting's name in it.
    pub(super) key: String,
    /// The value, of whatever kind.
    pub(super) value: Value,
    /// Where it was made.
    pub(super) place: Place,
}

/// Takes a TOML file apart.
pub(super) fn file_entries(path: &Path, text: &str, known: &Table) -> Result<Vec<Entry>, ConfigError> {
    let place = |at: usize| Place::File { path: path.to_owned(), line: line(text, at) };
    let syntax = |error: toml::de::Error| ConfigError::Syntax {
        place: place(error.span().map_or(0, |span| span.start)),
        cause: Box::new(error),
    };
    // Once with the positions of the names, once with the values.
    let positions = DeTable::parse(text).map_err(syntax)?;
    let mut values = text.parse::<Table>().map_err(syntax)?;
    let mut entries = Vec::new();
    for (section, body) in positions.get_ref() {
        let (name, section_place) = (section.get_ref().as_ref(), place(section.span().start));
        if !known.contains_key(name) {
            return Err(unknown(name, section_place, known));
        }
        let (Some(keys), Some(Value::Table(mut settings))) = (body.get_ref().as_table(), values.remove(name))
        else {
            return Err(ConfigError::NotSection { place: section_place, key: name.to_owned() });
        };
        for key in keys.keys() {
            let Some((key_name, value)) = settings.remove_entry(key.get_ref().as_ref()) else { continue };
            let place = place(key.span().start);
            entries.push(entry(name, &key_name, value, place, known)?);
        }
    }
    Ok(entries)
}

/// Picks the settings out of environment variables; other variables are left alone.
pub(super) fn variable_entries(
    variables: impl Iterator<Item = (String, String)>,
    known: &Table,
) -> Result<Vec<Entry>, ConfigError> {
    let mut ours: Vec<_> = variables.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
    ours.sort();
    ours.into_iter().map(|(name, text)| variable_entry(name, text, known)).collect()
}

fn variable_entry(name: String, text: String, known: &Table) -> Result<Entry, ConfigError> {
    let path = name.strip_prefix(VARIABLE_PREFIX).unwrap_or_default().to_ascii_lowercase();
    let found = path.split_once("__").and_then(|(section, key)| {
        let default = known.get(section)?.get(key)?;
        Some((section, key, value(text, default)))
    });
    match found {
        Some((section, key, value)) => entry(section, key, value, Place::Variable(name), known),
        None => {
            let (section, key) = path.split_once("__").unwrap_or(("", &path));
            let nearest = nearest_setting(section, key, known)
                .map(|meant| format!("{VARIABLE_PREFIX}{}", meant.to_uppercase().replace('.', "__")));
            Err(ConfigError::Unknown { nearest, key: path.replace("__", "."), place: Place::Variable(name) })
        }
    }
}

/// Reads a value as TOML where it can be, and by commas or verbatim where a list or a text is due.
fn value(text: String, default: &Value) -> Value {
    let read = text.parse::<Value>().ok();
    match (default, read) {
        (Value::String(_), Some(Value::String(unquoted))) => Value::String(unquoted),
        (Value::String(_), _) => Value::String(text),
        (Value::Array(_), Some(Value::Array(list))) => Value::Array(list),
        (Value::Array(_), _) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        (_, Some(read)) => read,
        (_, None) => Value::String(text),
    }
}

fn entry(section: &str, key: &str, value: Value, place: Place, known: &Table) -> Result<Entry, ConfigError> {
    let name = format!("{section}.{key}");
    let Some(default) = known.get(section).and_then(|section| section.get(key)) else {
        return Err(unknown(&name, place, known));
    };
    match wanted(default, &value) {
        Some(wanted) => {
            Err(ConfigError::WrongKind { place, key: name, wanted, default: default.to_string() })
        }
        None => Ok(Entry { section: section.to_owned(), key: key.to_owned(), value, place }),
    }
}

/// What a value should have been, if it is not of the default's kind.
fn wanted(default: &Value, value: &Value) -> Option<&'static str> {
    match (default, value) {
        (Value::Integer(_), Value::Integer(0..)) => None,
        (Value::Integer(_), _) => Some("a whole number from 0 on"),
        (Value::String(_), Value::String(_)) | (Value::Array(_), Value::Array(_)) => None,
        (Value::String(_), _) => Some("a text in quotes"),
        (Value::Array(_), _) => Some("a list in brackets"),
        // Some switches are more than true and false; they say so themselves.
        _ => None,
    }
}

/// A name at the top is a section's, or that of a setting outside its section; a setting's name may be right in
/// another section.
fn unknown(name: &str, place: Place, known: &Table) -> ConfigError {
    let nearest = match name.split_once('.') {
        Some((section, key)) => nearest_setting(section, key, known),
        None => {
            let sections = known.keys().map(|section| (section.clone(), section.clone()));
            nearest(name, sections).or_else(|| nearest_setting("", name, known))
        }
    };
    ConfigError::Unknown { place, key: name.to_owned(), nearest }
}

/// The setting that is meant, as `section.key`: one of the section before one of the others.
fn nearest_setting(section: &str, key: &str, known: &Table) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let (own, others): (Vec<_>, Vec<_>) =
        dotted(known).partition(|name| name.split_once('.').is_some_and(|(of, _)| of == section));
    let [own, others] = [own, others].map(|names| names.into_iter().map(|name| (last(&name), name)));
    nearest(key, own).or_else(|| nearest(key, others))
}

/// The names of all settings, as `section.key`.
pub(super) fn dotted(known: &Table) -> impl Iterator<Item = String> + '_ {
    known.iter().flat_map(|(section, settings)| {
        let keys = settings.as_table().into_iter().flat_map(Table::keys);
        keys.map(move |key| format!("{section}.{key}"))
    })
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|&byte| byte == b'\n').count() + 1
}
