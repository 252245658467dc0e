//! The file with the server's signing keys. It lies beside the log and not in it: an operator can
//! bring one along or look after it separately, and a log can be given away without it.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::fs::{FileSystem as _, RealFiles};

/// Its name in the data directory, and in a backup.
const NAME: &str = "signing.key";

/// Where a data directory has it.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Its text; `None` if there is no such file.
///
/// # Errors
///
/// If it is there and cannot be read.
pub fn read(dir: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path(dir)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes it so that after a crash there is the old one or the new one, whole and durable. Nobody
/// but the owner may read it.
///
/// # Errors
///
/// If the operating system refuses.
pub fn write(dir: &Path, text: &str) -> io::Result<()> {
    let (path, temporary) = (path(dir), dir.join(format!("{NAME}.tmp")));
    // One that a crash left may have other permissions.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, &path)?;
    RealFiles.sync_dir(dir)
}
