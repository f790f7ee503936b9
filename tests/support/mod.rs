//! What the tests stand on: the daemon, the scripted upstream, clients, admin calls.

pub mod admin;
pub mod client;
pub mod control;
pub mod daemon;
pub mod load;
pub mod page;
pub mod python;
pub mod redis;
pub mod reply;
pub mod rig;
pub mod seen;
pub mod upstream;
pub mod wire;

pub use client::{Answer, Call, Client};
pub use daemon::{Daemon, Setup, until};
pub use load::Load;
pub use redis::RedisServer;
pub use reply::{Gate, Gauge, Reply, Step, cut};
pub use rig::Rig;
pub use seen::{Ask, Seen};
pub use upstream::{Upstream, answer};
