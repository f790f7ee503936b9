//! Pages of the documentation as tests read them: tables, and what stands there as code.

use std::fs;

use super::daemon::repository;

/// The text of a page, named by its path from the repository's folder.
pub fn read(page: &str) -> String {
    fs::read_to_string(repository().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

/// The texts between single backticks, outside of blocks of code.
pub fn code_spans(text: &str) -> Vec<&str> {
    let in_prose = text.split("```").step_by(2);
    in_prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

/// The cells of a table's row; nothing for another line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(row.split('|').map(str::trim).collect())
}

/// A row of a table: its heads and its cells.
pub type Row<'a> = (Vec<&'a str>, Vec<&'a str>);

/// The rows of all tables.
pub fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    let mut heads: Option<Vec<&str>> = None;
    for line in text.lines() {
        match (cells(line), &heads) {
            (None, _) => heads = None,
            (Some(cells), None) => heads = Some(cells),
            (Some(cells), Some(_)) if cells.iter().all(|cell| cell.starts_with('-')) => {}
            (Some(cells), Some(heads)) => rows.push((heads.clone(), cells)),
        }
    }
    rows
}

/// The code in the cell of this column.
pub fn column<'a>((heads, cells): &Row<'a>, head: &str) -> Vec<&'a str> {
    let place = heads.iter().position(|named| *named == head);
    place.and_then(|place| cells.get(place)).map_or_else(Vec::new, |cell| code_spans(cell))
}
