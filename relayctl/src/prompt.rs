//! Questions to the person at the terminal. Without a terminal nothing is asked: what is missing is named.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use dialoguer::console::{Key, Term};
use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Select};
use indicatif::{ProgressBar, ProgressStyle};
use shared::progress::Progress;
use shared::redact::Secret;

use crate::failure::Failure;

/// Asks, or says that nobody can be asked.
pub(crate) struct Prompt {
    says_yes: bool,
    is_terminal: bool,
}

impl Prompt {
    /// Looks whether somebody sits there. Questions go to the standard error, so answers stay clean.
    pub(crate) fn new(says_yes: bool) -> Self {
        Self { says_yes, is_terminal: io::stdin().is_terminal() && io::stderr().is_terminal() }
    }

    /// Nobody sits there.
    #[cfg(test)]
    pub(crate) fn of_nobody() -> Self {
        Self { says_yes: false, is_terminal: false }
    }

    /// Somebody can be asked.
    pub(crate) fn can_ask(&self) -> bool {
        self.is_terminal
    }

    /// Lets a destructive command go on, if the person or `--yes` says so.
    pub(crate) fn confirm(&self, deed: &str) -> Result<(), Failure> {
        if self.says_yes {
            return Ok(());
        }
        if !self.is_terminal {
            let message = format!("not done: nobody is there to confirm to {deed}");
            return Err(Failure::usage(message, "pass --yes to do it without being asked"));
        }
        let theme = ColorfulTheme::default();
        let question = Confirm::with_theme(&theme).default(false);
        let answer = question.with_prompt(capitalised(deed)).interact_opt().context("no answer")?;
        if answer == Some(true) { Ok(()) } else { Err(left()) }
    }

    /// Lets the person choose one of several; the answer is its index.
    pub(crate) fn choose(&self, question: &str, items: &[String]) -> Result<usize, Failure> {
        let theme = ColorfulTheme::default();
        let select = Select::with_theme(&theme).with_prompt(question).items(items).default(0);
        select.interact_opt().context("no answer")?.ok_or_else(left)
    }

    /// Asks for a text until `check` takes it, proposing one where there is a usual answer.
    pub(crate) fn text(
        &self,
        question: &str,
        usual: Option<&str>,
        check: impl Fn(&str) -> Result<String, String>,
    ) -> Result<String, Failure> {
        let proposed = usual.map_or_else(String::new, |usual| format!(" [{usual}]"));
        loop {
            let typed = ask(&format!("{question}{proposed}: "), true)?;
            let text = if typed.is_empty() { usual.unwrap_or_default() } else { &typed };
            match check(text) {
                Ok(text) => return Ok(text),
                Err(reason) => {
                    Term::stderr().write_line(&reason).context("no answer")?;
                }
            }
        }
    }

    /// Asks for a secret; what is typed is not shown.
    pub(crate) fn secret(&self, question: &str) -> Result<Secret, Failure> {
        loop {
            let typed = ask(&format!("{question}: "), false)?;
            if !typed.is_empty() {
                return Ok(Secret::new(typed));
            }
        }
    }
}

/// The person does not want to go on.
fn left() -> Failure {
    Failure::BadNews { message: "not done".to_owned(), hint: None }
}

/// Asks for one line, without blanks around it. Escape and the end of input leave.
fn ask(question: &str, is_shown: bool) -> Result<String, Failure> {
    let term = Term::stderr();
    let mut line = Line::default();
    let columns = usize::from(term.size().1);
    let room =
        columns.checked_sub(question.chars().count() + 1).filter(|room| *room > 0).unwrap_or(usize::MAX);
    let draw = |line: &Line| {
        let (shown, behind) = if is_shown { line.window(room) } else { (String::new(), 0) };
        term.clear_line()?;
        term.write_str(question)?;
        term.write_str(&shown)?;
        term.move_cursor_left(behind)
    };
    loop {
        draw(&line).context("no answer")?;
        match line.typed(&term.read_key().context("no answer")?) {
            Typed::More => {}
            Typed::Done => break,
            Typed::Left => {
                term.write_line("").context("no answer")?;
                return Err(left());
            }
        }
    }
    term.write_line("").context("no answer")?;
    Ok(line.text().trim().to_owned())
}

/// A line that is being typed.
#[derive(Debug, Default)]
struct Line {
    chars: Vec<char>,
    /// Where the next character goes.
    at: usize,
}

/// What a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Typed {
    More,
    Done,
    Left,
}

impl Line {
    /// What Ctrl-D types.
    const END_OF_INPUT: char = '\u{4}';

    fn typed(&mut self, key: &Key) -> Typed {
        match *key {
            Key::Enter => return Typed::Done,
            Key::Escape | Key::CtrlC => return Typed::Left,
            Key::Char(Self::END_OF_INPUT) if self.chars.is_empty() => return Typed::Left,
            Key::Char(char) if !char.is_control() => {
                self.chars.insert(self.at, char);
                self.at += 1;
            }
            Key::Backspace if self.at > 0 => {
                self.at -= 1;
                self.chars.remove(self.at);
            }
            Key::Del if self.at < self.chars.len() => drop(self.chars.remove(self.at)),
            Key::ArrowLeft => self.at = self.at.saturating_sub(1),
            Key::ArrowRight => self.at = self.chars.len().min(self.at + 1),
            Key::Home => self.at = 0,
            Key::End => self.at = self.chars.len(),
            _ => {}
        }
        Typed::More
    }

    fn text(&self) -> String {
        self.chars.iter().collect()
    }

    /// What there is room for around the cursor, and how much of that stands behind it.
    fn window(&self, room: usize) -> (String, usize) {
        let start = self.at.saturating_sub(room);
        let end = self.chars.len().min(start.saturating_add(room));
        (self.chars[start..end].iter().collect(), end - self.at)
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>() + "?").unwrap_or_default()
}

/// Shows how far a long call is; only on a terminal.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// Shows nothing before it is told something.
    pub(crate) fn new() -> Self {
        Self(ProgressBar::no_length())
    }

    /// Shows how far it is.
    pub(crate) fn show(&self, progress: Progress) {
        let Progress { stage, done, total } = progress;
        match total {
            0 => self.0.unset_length(),
            total => self.0.set_length(total.max(done)),
        }
        self.0.set_style(style(total > 0));
        self.0.set_message(stage);
        self.0.set_position(done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(has_end: bool) -> ProgressStyle {
    let template = if has_end {
        "{msg} {wide_bar} {human_pos} of {human_len}, {eta} left"
    } else {
        "{spinner} {msg} {human_pos}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Shows that something is being waited for; only on a terminal.
pub(crate) fn spinner(what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_typed_and_changed_anywhere() {
        use Key::{ArrowLeft, Backspace, Char, Del, End, Enter, Home, Tab};
        let mut line = Line::default();
        let keys =
            [Char('b'), Char('d'), ArrowLeft, Char('c'), Home, Char('x'), Char('a'), Tab, End, Char('!')];
        for key in keys {
            assert_eq!(line.typed(&key), Typed::More);
        }
        assert_eq!(line.window(usize::MAX), ("xabcd!".to_owned(), 0));
        assert_eq!(line.window(3), ("cd!".to_owned(), 0), "the end is shown where not all has room");
        for key in [Backspace, Home, Del, Backspace] {
            assert_eq!(line.typed(&key), Typed::More);
        }
        assert_eq!(line.window(usize::MAX), ("abcd".to_owned(), 4));
        assert_eq!(line.window(3), ("abc".to_owned(), 3));
        assert_eq!(line.typed(&Enter), Typed::Done);
    }

    #[test]
    fn escape_and_the_end_of_input_leave() {
        let mut line = Line::default();
        assert_eq!(line.typed(&Key::Char('\u{4}')), Typed::Left);
        assert_eq!(line.typed(&Key::Char('a')), Typed::More);
        assert_eq!(line.typed(&Key::Char('\u{4}')), Typed::More, "within a line it is a slip");
        assert_eq!(line.typed(&Key::Escape), Typed::Left);
        assert_eq!(line.text(), "a");
    }
}
