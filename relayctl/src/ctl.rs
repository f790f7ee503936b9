//! What every command works with.

use crate::client::Client;
use crate::output::Output;
use crate::place::Place;
use crate::prompt::Prompt;

/// The daemon, the standard output, the person at the terminal, and where all is.
pub(crate) struct Ctl {
    pub(crate) client: Client,
    pub(crate) out: Output,
    pub(crate) prompt: Prompt,
    pub(crate) place: Place,
}
