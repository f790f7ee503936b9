//! The black box: the built daemon between real clients and a scripted upstream, over real sockets. A file
//! per behaviour.

#![expect(unreachable_pub, reason = "a test program exports nothing: `pub` means that another file uses it")]

#[cfg(test)]
mod admin;
#[cfg(test)]
mod adopt;
#[cfg(test)]
mod affinity;
#[cfg(test)]
mod architecture;
#[cfg(test)]
mod auth;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod config;
#[cfg(test)]
mod cors;
#[cfg(test)]
mod cuts;
#[cfg(test)]
#[cfg(feature = "embedded")]
mod damage;
#[cfg(test)]
mod disconnect;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod ends;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod failover;
#[cfg(test)]
#[cfg(feature = "redis")]
mod faults;
#[cfg(test)]
mod fidelity;
#[cfg(test)]
mod front_door;
#[cfg(test)]
mod health;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod logs;
#[cfg(test)]
#[cfg(feature = "redis")]
mod migrate;
#[cfg(test)]
#[cfg(feature = "redis")]
mod outage;
#[cfg(test)]
mod pacing;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod quickstart;
#[cfg(test)]
#[cfg(feature = "embedded")]
mod rebuild;
#[cfg(test)]
mod sdk;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod silence;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod spending;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod support;
#[cfg(test)]
mod told;
#[cfg(test)]
mod upstream;
