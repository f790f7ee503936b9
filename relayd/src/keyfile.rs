//! Where the sealing key comes from: a systemd credential, the environment, or a file that is made at the first
//! start: once, whole or not at all, also when the power fails.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use shared::crypto::{CryptoError, SealingKey};
use shared::redact::Secret;

/// Name of the systemd credential.
const CREDENTIAL: &str = "sealing-key";
/// Name of the environment variable.
const VARIABLE: &str = "RELAYD_SEALING_KEY";

/// Why there is no sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read or made.
    #[error("the sealing key {} cannot be read or made", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read the file.
    #[error("the sealing key {} can be read by others; make it private: chmod 600 {}", .0.display(), .0.display())]
    Open(PathBuf),
    /// The file that is named is not there.
    #[error("the sealing key {} does not exist; make it, or name none to have one made in the data folder", .0.display())]
    Missing(PathBuf),
    /// There is a store but no key: a new key would not open it.
    #[error("the sealing key {} is gone, and the store in the data folder cannot be opened without it", .0.display())]
    Lost(PathBuf),
    /// What is there is no key.
    #[error("{place} holds no sealing key")]
    Malformed {
        /// Where it was looked for.
        place: String,
        /// What is wrong.
        #[source]
        source: CryptoError,
    },
}

/// Finds the sealing key; makes the file if there is none and no store that needs an older one.
pub fn load(file: &Path, has_store: bool) -> Result<SealingKey, KeyFileError> {
    find(file, has_store)?.map_or_else(|| make(file), Ok)
}

/// Finds the sealing key; `None` if there is none yet and no store that needs an older one.
pub fn find(file: &Path, has_store: bool) -> Result<Option<SealingKey>, KeyFileError> {
    if let Some(key) = given()? {
        return Ok(Some(key));
    }
    match std::fs::metadata(file) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 && metadata.is_file() => {
            Err(KeyFileError::Open(file.to_owned()))
        }
        Ok(_) => read(file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound && has_store => {
            Err(KeyFileError::Lost(file.to_owned()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyFileError::Io { path: file.to_owned(), source }),
    }
}

/// The sealing key that systemd or the environment gives, which comes before any file.
pub fn given() -> Result<Option<SealingKey>, KeyFileError> {
    if let Some(folder) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let path = PathBuf::from(folder).join(CREDENTIAL);
        if path.exists() {
            return read(&path).map(Some);
        }
    }
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(None) };
    parse(&Secret::new(text), VARIABLE).map(Some)
}

fn read(path: &Path) -> Result<SealingKey, KeyFileError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })?;
    parse(&Secret::new(text), &path.display().to_string())
}

fn parse(text: &Secret, place: &str) -> Result<SealingKey, KeyFileError> {
    SealingKey::from_hex(text.expose())
        .map_err(|source| KeyFileError::Malformed { place: place.to_owned(), source })
}

/// Of several processes that start at once, one makes the key and all read it.
fn make(path: &Path) -> Result<SealingKey, KeyFileError> {
    let key = SealingKey::generate()
        .map_err(|source| KeyFileError::Malformed { place: "a new key".to_owned(), source })?;
    let text = Secret::new(format!("{}\n", key.to_hex().expose()));
    match create(path, text.expose()) {
        Ok(true) => Ok(key),
        Ok(false) => read(path),
        Err(source) => Err(KeyFileError::Io { path: path.to_owned(), source }),
    }
}

/// Makes a file for its owner alone; tells whether it did. A file that is there stays as it is.
pub fn create(path: &Path, text: &str) -> io::Result<bool> {
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let created = write(&draft, text).and_then(|()| match std::fs::hard_link(&draft, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    });
    // Best effort: a draft that stays is nobody's.
    drop(std::fs::remove_file(&draft));
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    created
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("relayd-keyfile-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let folder = folder("made");
        let file = folder.join("sealing.key");
        let made = load(&file, false).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&file, true).unwrap().id(), made.id());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&file, true), Err(KeyFileError::Open(_))));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_lost_key_is_not_replaced_and_a_broken_one_is_named() {
        let folder = folder("lost");
        let file = folder.join("sealing.key");
        assert!(matches!(load(&file, true), Err(KeyFileError::Lost(_))));
        assert!(!file.exists());
        create(&file, "hello").unwrap();
        assert!(matches!(load(&file, true), Err(KeyFileError::Malformed { .. })));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_first_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sealing.key");
        assert!(create(&path, "first").unwrap());
        assert!(!create(&path, "second").unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a draft is left");
        assert!(create(&folder.path().join("nowhere/file"), "x").is_err());
    }
}
