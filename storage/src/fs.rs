//! The little that the log asks of a file system, so that tests can put one under it that loses
//! what was not synced.

use std::{
    fmt, fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A directory tree with files. Errors are those of the operating system.
pub trait FileSystem: Send + Sync + fmt::Debug {
    /// Creates a directory and those above it; no error if it exists.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names of the files in a directory, in no order.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Creates an empty file for reading and writing; one of that name is emptied.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>>;

    /// Opens an existing file for reading and, if asked for, writing.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>>;

    /// Gives a file another name, in place of the one that had it.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the exclusive lock that this file stands for; it is held until the value is dropped.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if somebody else holds it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>>;
}

/// A held lock.
pub trait FileLock: Send + Sync + fmt::Debug {}

/// An open file.
pub trait StorageFile: Send + Sync + fmt::Debug {
    /// Fills the whole buffer from this byte offset on.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before; else what the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of it at this byte offset.
    ///
    /// # Errors
    ///
    /// If the operating system refuses; then any part of it may have been written.
    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()>;

    /// Cuts the file to this length in bytes.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes everything written so far durable (`fdatasync`).
    ///
    /// # Errors
    ///
    /// If it did not happen; then nothing is known about what was written since the last time.
    fn sync(&self) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// If the operating system refuses.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The operating system's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealFiles;

impl FileSystem for RealFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            // A name that is not Unicode is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn StorageFile>> {
        let file =
            fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Arc::new(file))
    }

    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(fs::File::options().read(true).write(write).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn FileLock>> {
        let file = fs::File::options().write(true).create(true).truncate(false).open(path)?;
        file.try_lock().map_err(io::Error::from)?;
        Ok(Box::new(file))
    }
}

impl FileLock for fs::File {}

impl StorageFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(data, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// The directory that holds this one, so that its name can be made durable.
pub(crate) fn parent(dir: &Path) -> PathBuf {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
