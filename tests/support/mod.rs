//! What the tests stand on: the daemon, the scripted upstream, clients, admin calls.

pub mod admin;
pub mod client;
pub mod daemon;
pub mod python;
pub mod rig;
pub mod upstream;
pub mod wire;

pub use client::{Answer, Call, Client};
pub use daemon::{Daemon, Setup, until};
pub use rig::Rig;
pub use upstream::{Reply, Step, Upstream};
