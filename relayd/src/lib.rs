//! An AI API relay: clients call with a key that the relay issued, it chooses an upstream account, forwards
//! the call, streams the reply back untouched, and books what it used and cost.
//!
//! A request runs through `server` (listener, router), `auth`, `relay` (pick, reserve, send, fail over, stream)
//! and `ledger` (journal, store). `scheduler`, `limits`, `pricing`, `protocol` and `provider` are pure.

mod admin;
mod auth;
mod budgets;
mod causes;
mod check;
mod clock;
mod config;
mod daemon;
mod directory;
mod events;
mod jobs;
mod keyfile;
mod ledger;
mod limits;
mod logging;
mod migrate;
mod near;
mod percent;
mod pricing;
mod protocol;
mod provider;
mod rebuild;
mod relay;
mod scheduler;
mod server;
mod simulator;
mod store;
mod upstream;
mod workers;

pub use check::{CheckError, check};
pub use config::{Config, ConfigError, NoAddress, address};
pub use daemon::{Options, RunError, run};
pub use logging::LogError;
pub use protocol::fuzz;
