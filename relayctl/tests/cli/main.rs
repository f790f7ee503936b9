//! relayctl as a program: what it prints and how it ends, over real sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod commands;
mod quickstart;
mod support;
