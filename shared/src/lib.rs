//! What `relayd` and `relayctl` must agree on: domain types, the calls of the admin API, and how secrets
//! are sealed. A type lives here only if both programs use it.

pub mod admin;
pub mod costs;
pub mod crypto;
pub mod domain;
pub mod progress;
pub mod redact;
pub mod store;
