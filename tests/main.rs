//! The black box: the built daemon between real clients and a scripted upstream, over real sockets. A file
//! per behaviour.

#![expect(unreachable_pub, reason = "a test program exports nothing: `pub` means that another file uses it")]

#[cfg(test)]
mod architecture;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod sdk;
#[cfg(test)]
mod support;
#[cfg(test)]
mod upstream;
