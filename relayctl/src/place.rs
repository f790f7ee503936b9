//! Where the daemon is: its socket and its data folder. Flags win over the environment, a service over a
//! daemon that a person started.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

const SOCKET_NAME: &str = "relayd.sock";
const SERVICE_SOCKET: &str = "/run/relayd/relayd.sock";

/// Where the daemon is.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct PlaceArgs {
    /// The daemon's data folder, which has its socket [default: ~/.local/state/relayd]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The daemon's socket [env: RELAYD_SOCKET] [default: /run/relayd/relayd.sock if a service made it, else
    /// relayd.sock in the data folder]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
}

/// What the process knows about its surroundings.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) socket: Option<PathBuf>,
    pub(crate) state: Option<PathBuf>,
    pub(crate) user_state: Option<PathBuf>,
    pub(crate) home: Option<PathBuf>,
    /// The socket of the system's service, if there is one.
    pub(crate) service_socket: Option<PathBuf>,
}

impl Environment {
    /// Reads variables and looks for the service's socket. A home that is not named from the root on is none: what
    /// it means depends on the folder that one happens to be in.
    pub(crate) fn of_process() -> Self {
        let path = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
        let whole = |name| path(name).filter(|path| path.is_absolute());
        Self {
            socket: path("RELAYD_SOCKET"),
            state: path("STATE_DIRECTORY"),
            user_state: whole("XDG_STATE_HOME"),
            home: whole("HOME"),
            service_socket: Some(PathBuf::from(SERVICE_SOCKET)).filter(|socket| socket.exists()),
        }
    }

    /// The data folder of a daemon that was started without flags; there is none without a home.
    fn default_data(&self) -> Option<PathBuf> {
        let in_home = || self.home.as_ref().map(|home| home.join(".local/state/relayd"));
        let for_user = self.user_state.as_ref().map(|state| state.join("relayd")).or_else(in_home);
        self.state.clone().or(for_user)
    }
}

/// Where the daemon is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The socket that commands use; none if nothing says where one could be.
    pub(crate) socket: Option<PathBuf>,
    /// The data folder that was named, or the default one.
    pub(crate) data: Option<PathBuf>,
    /// The data folder was named by a flag.
    pub(crate) data_is_named: bool,
    /// The socket itself was named, by a flag or the environment.
    pub(crate) socket_is_named: bool,
}

impl Place {
    /// `--socket`, then `--data`, then `RELAYD_SOCKET`, then the service, then the default data folder.
    pub(crate) fn find(args: &PlaceArgs, environment: &Environment) -> Self {
        let data = args.data.clone().or_else(|| environment.default_data());
        let from_environment = || environment.socket.clone().filter(|_| args.data.is_none());
        let named = args.socket.clone().or_else(from_environment);
        let service = || environment.service_socket.clone().filter(|_| args.data.is_none());
        let socket = named.clone().or_else(service).or_else(|| data.as_deref().map(socket_in));
        Self { socket, data, data_is_named: args.data.is_some(), socket_is_named: named.is_some() }
    }
}

/// The socket of the daemon that has this data folder.
pub(crate) fn socket_in(data: &Path) -> PathBuf {
    data.join(SOCKET_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_looked_for_in_order() {
        let full = || Environment {
            socket: Some("/env.sock".into()),
            state: Some("/state".into()),
            user_state: Some("/xdg".into()),
            home: Some("/home/a".into()),
            service_socket: Some(SERVICE_SOCKET.into()),
        };
        let without_env = || Environment { socket: None, ..full() };
        let by_hand = || Environment { service_socket: None, ..without_env() };
        for (socket, data, environment, expected) in [
            (Some("/flag.sock"), Some("/data"), full(), "/flag.sock"),
            (None, Some("/data"), full(), "/data/relayd.sock"),
            (None, None, full(), "/env.sock"),
            (None, None, without_env(), SERVICE_SOCKET),
            (None, None, by_hand(), "/state/relayd.sock"),
            (None, None, Environment { state: None, ..by_hand() }, "/xdg/relayd/relayd.sock"),
            (
                None,
                None,
                Environment { state: None, user_state: None, ..by_hand() },
                "/home/a/.local/state/relayd/relayd.sock",
            ),
        ] {
            let args = PlaceArgs { data: data.map(Into::into), socket: socket.map(Into::into) };
            assert_eq!(Place::find(&args, &environment).socket.as_deref(), Some(Path::new(expected)));
        }
        let homeless = Place::find(&PlaceArgs::default(), &Environment::default());
        assert_eq!((homeless.socket, homeless.data), (None, None));
    }
}
