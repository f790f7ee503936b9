//! An AI API relay: clients call with a key that the relay issued, it chooses an upstream account, forwards
//! the call, streams the reply back untouched, and books what it used and cost.

pub mod clock;
pub mod ledger;
pub mod store;
