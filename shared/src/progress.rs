//! Calls of the admin API that take long: the answer has status 200 and is a [`Line`] of JSON on each line, the last of
//! which is the reply or the problem. What is wrong with the call itself is a problem with its own status, as for
//! any call.

use serde::{Deserialize, Serialize};

use crate::admin::{AdminCall, Problem};

/// A call whose answer comes in lines.
pub trait LongCall: AdminCall {}

/// How far a call is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does: one word.
    pub stage: String,
    /// So much of it is done.
    pub done: u64,
    /// Of so much; 0 where that is not known.
    pub total: u64,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line<R> {
    /// It goes on.
    Progress(Progress),
    /// It is done.
    Reply(R),
    /// It failed.
    Problem(Problem),
}
