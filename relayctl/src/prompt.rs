//! Questions to the person at the terminal. Without a terminal nothing is asked: what is missing is named.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Input, Password, Select};
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
        let answer = question.with_prompt(capitalised(deed)).interact().context("no answer")?;
        if answer { Ok(()) } else { Err(Failure::BadNews { message: "not done".to_owned(), hint: None }) }
    }

    /// Lets the person choose one of several; the answer is its index.
    pub(crate) fn choose(&self, question: &str, items: &[String]) -> Result<usize, Failure> {
        let theme = ColorfulTheme::default();
        let select = Select::with_theme(&theme).with_prompt(question).items(items).default(0);
        Ok(select.interact().context("no answer")?)
    }

    /// Asks for a text, proposing one where there is a usual answer.
    pub(crate) fn text(&self, question: &str, usual: Option<&str>) -> Result<String, Failure> {
        let theme = ColorfulTheme::default();
        let input = Input::<String>::with_theme(&theme).with_prompt(question);
        let input = match usual {
            Some(usual) => input.default(usual.to_owned()),
            None => input,
        };
        Ok(input.interact_text().context("no answer")?.trim().to_owned())
    }

    /// Asks for a secret; what is typed is not shown.
    pub(crate) fn secret(&self, question: &str) -> Result<Secret, Failure> {
        let theme = ColorfulTheme::default();
        let password = Password::with_theme(&theme).with_prompt(question);
        Ok(Secret::new(password.interact().context("no answer")?.trim()))
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
