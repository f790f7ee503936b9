//! How an answer is written: a table for people or JSON for programs. What a table says is decided by the
//! command groups; how it looks is decided here.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use comfy_table::{
    Attribute, Cell as TableCell, CellAlignment, Color, ColumnConstraint, ContentArrangement, Table, Width,
    presets,
};
use serde::Serialize;
use shared::domain::Timestamp;

use crate::failure::Failure;
use crate::format;

/// How answers are written: tables for people, the daemon's very replies for programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// What tables depend on besides the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) now: Timestamp,
    pub(crate) is_coloured: bool,
    /// Columns of the terminal, if it is one.
    pub(crate) width: Option<u16>,
}

/// The standard output.
pub(crate) struct Output {
    format: Format,
    look: Look,
}

impl Output {
    /// Looks at the standard output, the clock and `NO_COLOR`.
    pub(crate) fn new(format: Format) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let is_coloured = is_terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let width = is_terminal.then(|| Table::new().width()).flatten();
        Self { format, look: Look { now: now(), is_coloured, width } }
    }

    /// The time that this command works with.
    pub(crate) fn now(&self) -> Timestamp {
        self.look.now
    }

    /// Programs read the answer.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes an answer, as JSON or as the text that `text` makes of it.
    pub(crate) fn print<T: Serialize + ?Sized>(
        &self,
        answer: &T,
        text: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Failure> {
        let written = match self.format {
            Format::Table => text(answer, &self.look),
            Format::Json if self.look.width.is_some() => {
                serde_json::to_string_pretty(answer).map_err(io::Error::from)?
            }
            Format::Json => serde_json::to_string(answer).map_err(io::Error::from)?,
        };
        write(&format!("{}\n", written.trim_end_matches('\n')))
    }

    /// Writes a text for people at once; programs are spared it.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        if self.is_json() { Ok(()) } else { write(text) }
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(0).after(since_epoch)
}

/// What a cell means, told by its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Neutral,
    Good,
    Warning,
    Bad,
}

/// One cell of a table.
#[derive(Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text with a meaning.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Neutral)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Neutral)
    }
}

/// Where a column that may be wrapped is still readable.
const WRAPPED_WIDTH_MIN: u16 = 16;
const GAP: u16 = 2;

/// A table in the making. The name of a column may begin with a mark: `>` aligns its numbers right, `~` lets
/// its cells wrap where the terminal is narrow. Everything else keeps its width, so that it can be copied.
pub(crate) struct Grid {
    table: Table,
    width: Option<u16>,
    wraps: Vec<bool>,
}

impl Grid {
    /// A table with a head.
    pub(crate) fn new(look: &Look, columns: &[&str]) -> Self {
        let mut grid = Self::bare(look);
        let head = columns.iter().map(|name| {
            let name = name.trim_start_matches(['>', '~']).to_uppercase();
            TableCell::new(name).add_attribute(Attribute::Bold)
        });
        grid.table.set_header(head.collect::<Vec<_>>());
        grid.wraps = columns.iter().map(|name| name.starts_with('~')).collect();
        for (at, name) in columns.iter().enumerate() {
            if name.starts_with('>')
                && let Some(column) = grid.table.column_mut(at)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        grid
    }

    /// A table without a head, for one record: a name and a value in each row.
    pub(crate) fn bare(look: &Look) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if look.is_coloured {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        Self { table, width: look.width, wraps: vec![false, true] }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> &mut Self {
        let cells = cells.into_iter().map(|cell| {
            let shown = TableCell::new(format::plain(&cell.text));
            match cell.tone {
                Tone::Neutral => shown,
                Tone::Good => shown.fg(Color::Green),
                Tone::Warning => shown.fg(Color::Yellow),
                Tone::Bad => shown.fg(Color::Red),
            }
        });
        self.table.add_row(cells.collect::<Vec<_>>());
        self
    }

    /// Adds a row of a name and a value.
    pub(crate) fn pair(&mut self, name: &str, value: impl Into<Cell>) -> &mut Self {
        self.row([name.into(), value.into()])
    }

    /// The finished text.
    pub(crate) fn text(&mut self) -> String {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, GAP));
        }
        match self.width {
            Some(width) => self.fit(width),
            None => drop(self.table.set_content_arrangement(ContentArrangement::Disabled)),
        }
        self.table.trim_fmt()
    }

    fn fit(&mut self, width: u16) {
        self.table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        let widths = self.table.column_max_content_widths();
        for ((column, wraps), width) in self.table.column_iter_mut().zip(&self.wraps).zip(widths) {
            let least = Width::Fixed(width.min(WRAPPED_WIDTH_MIN) + GAP);
            column.set_constraint(match wraps {
                true => ColumnConstraint::LowerBoundary(least),
                false => ColumnConstraint::ContentWidth,
            });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain pipe, long after the epoch.
    pub(crate) const PIPE: Look =
        Look { now: Timestamp::from_millis(1_795_000_000_000), is_coloured: false, width: None };

    #[test]
    fn tables_align_numbers_right_and_carry_no_borders() {
        let mut grid = Grid::new(&PIPE, &["name", ">requests"]);
        grid.row(["alice".into(), "1,234".into()]).row(["b".into(), Cell::toned("7", Tone::Bad)]);
        assert_eq!(grid.text(), "NAME   REQUESTS\nalice     1,234\nb             7");
    }

    #[test]
    fn colours_appear_only_when_they_are_wanted() {
        let cell = || [Cell::toned("ok", Tone::Good)];
        assert_eq!(Grid::new(&PIPE, &["state"]).row(cell()).text(), "STATE\nok");
        let coloured = Look { is_coloured: true, ..PIPE };
        assert!(Grid::new(&coloured, &["state"]).row(cell()).text().contains("\u{1b}["));
    }

    #[test]
    fn narrow_terminals_wrap_prose_and_nothing_else() {
        let narrow = Look { width: Some(40), ..PIPE };
        let id = "req_0123456789abcdef0123";
        let mut grid = Grid::new(&narrow, &["id", "~why"]);
        let text = grid.row([id.into(), "one two three four five six".into()]).text();
        assert!(text.contains(id) && text.lines().count() > 2, "{text}");
        assert!(text.lines().all(|line| line.len() <= 44), "{text}");
        let wide = Look { width: Some(200), ..PIPE };
        assert_eq!(Grid::bare(&wide).pair("a", "b c").text(), "a  b c");
    }

    #[test]
    fn what_others_wrote_cannot_command_the_terminal() {
        let text = Grid::bare(&PIPE).pair("model", "x\u{1b}[2Jy").text();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
