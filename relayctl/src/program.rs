//! Where the daemon's program is.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Finds the daemon's program: beside this one, else in `PATH`.
pub(crate) fn relayd_program() -> Result<PathBuf, Failure> {
    let beside = env::current_exe().ok().map(|program| program.with_file_name("relayd"));
    let found = find_program(beside, env::var_os("PATH").as_deref());
    found.ok_or_else(|| {
        Failure::bad_news(
            "the program relayd is neither beside relayctl nor in PATH",
            "build it with `cargo build --release`, or install it",
        )
    })
}

fn find_program(beside: Option<PathBuf>, path: Option<&OsStr>) -> Option<PathBuf> {
    let in_path = path.into_iter().flat_map(env::split_paths).map(|folder| folder.join("relayd"));
    beside.into_iter().chain(in_path).find(|program| is_executable(program))
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;

    #[test]
    fn the_program_beside_wins_over_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, mode| {
            let program = folder.path().join(name).join("relayd");
            fs::create_dir(program.parent().unwrap()).unwrap();
            fs::write(&program, "").unwrap();
            fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
            program
        };
        let (beside, plain, first) = (make("beside", 0o755), make("plain", 0o644), make("first", 0o755));
        let path = env::join_paths([plain.parent().unwrap(), first.parent().unwrap()]).unwrap();
        assert_eq!(find_program(Some(beside.clone()), Some(&path)), Some(beside));
        assert_eq!(find_program(Some(folder.path().join("relayd")), Some(&path)), Some(first));
        assert_eq!(find_program(None, None), None);
    }
}
