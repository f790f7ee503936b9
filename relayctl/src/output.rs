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

impl Look {
    /// A time, exact and seen from now.
    pub(crate) fn at(&self, time: Timestamp) -> String {
        format!("{time} ({})", format::seen_from(self.now, time))
    }

    /// A time at which something happened, exact and seen from now.
    pub(crate) fn happened(&self, time: Timestamp) -> String {
        format!("{time} ({})", self.ago(time))
    }

    /// How long ago something happened. The daemon's clock may be a little ahead of the one read here.
    pub(crate) fn ago(&self, time: Timestamp) -> String {
        format::seen_from(self.now, time.min(self.now))
    }

    /// A sentence in lines that fit.
    pub(crate) fn sentence(&self, text: &str) -> String {
        let text = format::plain(text);
        self.width.map_or_else(|| text.clone(), |width| wrapped(&text, width))
    }
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
        // Some terminals do not know their size, and say that it is nothing.
        let width = is_terminal.then(|| Table::new().width()).flatten().filter(|width| *width > 0);
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

    /// Shows people what a program is spared, which reads the last answer alone.
    pub(crate) fn show<T: ?Sized>(
        &self,
        answer: &T,
        text: impl FnOnce(&T, &Look) -> String,
    ) -> Result<(), Failure> {
        if self.is_json() { Ok(()) } else { write(&format!("{}\n\n", text(answer, &self.look))) }
    }

    /// Writes a remark for people beside the answer, to the standard error; programs are spared it.
    pub(crate) fn remark(&self, text: &str) {
        if !self.is_json() {
            // When the standard error is closed, the answer is all that can be told.
            let _ = io::stderr().write_all(format!("{}\n", format::plain(text)).as_bytes());
        }
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
    fn shown(&self) -> TableCell {
        let shown = TableCell::new(&self.text);
        match self.tone {
            Tone::Neutral => shown,
            Tone::Good => shown.fg(Color::Green),
            Tone::Warning => shown.fg(Color::Yellow),
            Tone::Bad => shown.fg(Color::Red),
        }
    }

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
/// No id is longer, so that none is ever cut.
const WORD_WIDTH_MAX: u16 = 40;
const GAP: u16 = 2;

/// A column as its name in a table's head describes it.
struct Column {
    name: String,
    is_right: bool,
    wraps: bool,
    /// How easily it can be spared; 0 is not at all.
    spare: usize,
}

impl Column {
    fn of(marked: &str) -> Self {
        let name = marked.trim_start_matches(['>', '~', '?']);
        let marks = &marked[..marked.len() - name.len()];
        let spare = marks.matches('?').count();
        Self { name: name.to_owned(), is_right: marks.contains('>'), wraps: marks.contains('~'), spare }
    }
}

/// A table in the making. The name of a column may begin with marks: `>` aligns its numbers right; `~` lets its
/// cells wrap where the terminal is narrow, everything else keeps its width, so that it can be copied; `?` lets the
/// column be left out where it does not fit, the sooner the more of them there are.
pub(crate) struct Grid {
    columns: Vec<Column>,
    has_head: bool,
    rows: Vec<Vec<Cell>>,
    is_coloured: bool,
    width: Option<u16>,
}

impl Grid {
    /// A table with a head.
    pub(crate) fn new(look: &Look, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|name| Column::of(name)).collect();
        let Look { is_coloured, width, .. } = *look;
        Self { columns, has_head: true, rows: Vec::new(), is_coloured, width }
    }

    /// A table without a head, for one record: a name and a value in each row.
    pub(crate) fn bare(look: &Look) -> Self {
        Self { has_head: false, ..Self::new(look, &["", "~"]) }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> &mut Self {
        let cells = cells.into_iter().map(|cell| Cell { text: format::plain(&cell.text), ..cell });
        self.rows.push(cells.collect());
        self
    }

    /// Adds a row of a name and a value.
    pub(crate) fn pair(&mut self, name: &str, value: impl Into<Cell>) -> &mut Self {
        self.row([name.into(), value.into()])
    }

    /// The finished text. What had to be left out is named below it.
    pub(crate) fn text(&self) -> String {
        let Some(width) = self.width else {
            let mut table = self.table(&vec![true; self.columns.len()]);
            return table.set_content_arrangement(ContentArrangement::Disabled).trim_fmt();
        };
        let least = self.least_widths();
        let kept = kept(&self.columns, &least, width);
        let mut table = self.table(&kept);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width + GAP);
        let shown = self.columns.iter().zip(&least).zip(&kept).filter(|(_, kept)| **kept);
        for (shape, ((column, least), _)) in table.column_iter_mut().zip(shown) {
            shape.set_constraint(match column.wraps {
                true => ColumnConstraint::LowerBoundary(Width::Fixed(least + GAP)),
                false => ColumnConstraint::ContentWidth,
            });
        }
        let left_out = self.columns.iter().zip(&kept).filter(|(_, kept)| !**kept);
        let left_out: Vec<&str> = left_out.map(|(column, _)| column.name.as_str()).collect();
        match left_out.as_slice() {
            [] => table.trim_fmt(),
            names => format!("{}\n\n{}", table.trim_fmt(), note(names, width)),
        }
    }

    fn table(&self, kept: &[bool]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if self.is_coloured {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let shown = || self.columns.iter().zip(kept).filter(|(_, kept)| **kept).map(|(column, _)| column);
        if self.has_head {
            let head = shown().map(|column| column.name.to_uppercase());
            table.set_header(head.map(|name| TableCell::new(name).add_attribute(Attribute::Bold)));
        }
        for row in &self.rows {
            let cells = row.iter().zip(kept).filter(|(_, kept)| **kept);
            table.add_row(cells.map(|(cell, _)| cell.shown()));
        }
        for (shape, column) in table.column_iter_mut().zip(shown()) {
            shape.set_padding((0, GAP));
            if column.is_right {
                shape.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }

    /// How wide each column must be: as wide as its cells, or where they wrap as their longest word.
    fn least_widths(&self) -> Vec<u16> {
        let whole = self.table(&vec![true; self.columns.len()]).column_max_content_widths();
        let cells = |at: usize| self.rows.iter().filter_map(move |row| row.get(at));
        let word = |at: usize| {
            let words = cells(at).flat_map(|cell| cell.text.split_whitespace());
            let longest = words.map(|word| word.chars().count()).max().unwrap_or(0);
            u16::try_from(longest).unwrap_or(WORD_WIDTH_MAX).clamp(WRAPPED_WIDTH_MIN, WORD_WIDTH_MAX)
        };
        let columns = self.columns.iter().zip(whole).enumerate();
        columns.map(|(at, (column, whole))| if column.wraps { whole.min(word(at)) } else { whole }).collect()
    }
}

/// Which columns fit: those that cannot be spared, then as many of the others as there is room for.
fn kept(columns: &[Column], least: &[u16], width: u16) -> Vec<bool> {
    let mut kept = vec![false; columns.len()];
    let mut taken = 0;
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by_key(|&at| columns[at].spare);
    for at in order {
        let with = taken + usize::from(least[at]) + usize::from(GAP);
        // The last column needs no gap.
        if columns[at].spare == 0 || with <= usize::from(width + GAP) {
            (kept[at], taken) = (true, with);
        }
    }
    kept
}

/// What is left out, in lines that fit too.
fn note(names: &[&str], width: u16) -> String {
    wrapped(&format!("no room for {}; --output json has all", format::list(names, "")), width)
}

/// A text in lines of a width, broken between words.
fn wrapped(text: &str, width: u16) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let is_full = |line: &String| {
            !line.is_empty() && line.chars().count() + 1 + word.chars().count() > usize::from(width)
        };
        match lines.last_mut() {
            Some(line) if !is_full(line) => {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain pipe, long after the epoch.
    pub(crate) const PIPE: Look =
        Look { now: Timestamp::from_millis(1_795_000_000_000), is_coloured: false, width: None };

    /// A table on narrow terminals: its lines fit, and the words that are to be copied stand whole.
    pub(crate) fn fits(table: impl Fn(&Look) -> String, whole: &[&str]) {
        for width in [60, 70, 80, 100] {
            let text = table(&Look { width: Some(width), ..PIPE });
            let too_long = text.lines().find(|line| line.chars().count() > usize::from(width));
            assert_eq!(too_long, None, "{width}\n{text}");
            for word in whole {
                assert!(text.split_whitespace().any(|shown| shown == *word), "{word} at {width}\n{text}");
            }
        }
    }

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
    fn columns_that_do_not_fit_are_left_out_by_their_importance() {
        for (width, expected) in [
            (80, "ID          WHY    COST  WEIGHT\nreq_012345  three     7       8"),
            (31, "ID          WHY    COST  WEIGHT\nreq_012345  three     7       8"),
            (
                30,
                "ID          WHY    COST\nreq_012345  three     7\n\nno room for weight; --output\njson has all",
            ),
            (22, "ID          COST\nreq_012345     7\n\nno room for why,\nweight; --output json\nhas all"),
            (5, "ID\nreq_012345\n\nno\nroom\nfor\nwhy,\ncost,\nweight;\n--output\njson\nhas\nall"),
        ] {
            let narrow = Look { width: Some(width), ..PIPE };
            let mut grid = Grid::new(&narrow, &["id", "??why", "?>cost", "???>weight"]);
            grid.row(["req_012345".into(), "three".into(), "7".into(), "8".into()]);
            assert_eq!(grid.text(), expected, "{width}");
        }
    }

    #[test]
    fn sentences_are_wrapped_and_what_happened_is_not_in_the_future() {
        let narrow = Look { width: Some(12), ..PIPE };
        assert_eq!(narrow.sentence("one two three four"), "one two\nthree four");
        assert_eq!(PIPE.sentence("one two three four"), "one two three four");
        let ahead = Timestamp::from_millis(PIPE.now.as_millis() + 1_500);
        assert_eq!(
            (PIPE.ago(ahead).as_str(), format::seen_from(PIPE.now, ahead).as_str()),
            ("just now", "in 1 s")
        );
    }

    #[test]
    fn what_others_wrote_cannot_command_the_terminal() {
        let text = Grid::bare(&PIPE).pair("model", "x\u{1b}[2Jy").text();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
