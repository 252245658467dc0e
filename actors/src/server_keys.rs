//! The keys with which this server signs: a file in the data directory, one key a line, in the
//! format of other homeservers (`ed25519 a_1 <unpadded base64 of the seed>`), so that keys can be
//! carried over. The first key signs; the others are published, so that what they signed holds.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parlour_event::{
    hashes,
    signing::{KeyError, SigningKey},
};
use parlour_storage::key_file;

use crate::env::Env;

/// The only algorithm that Matrix defines.
const ALGORITHM: &str = "ed25519";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum ServerKeysError {
    /// The file cannot be read or written.
    #[error("cannot read or write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line of the file is no key.
    #[error("{}, line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// What is wrong. Never the line itself, which may hold a secret.
        what: String,
    },
    /// The file has no key.
    #[error("{} holds no key; remove it, or put one in", .0.display())]
    Empty(PathBuf),
    /// The file is gone, but what it signed is not.
    #[error(
        "{} is missing, and others check the events of this server with it: bring it back from a \
         backup, or make another one with `parlour new-signing-key`", .0.display()
    )]
    Missing(PathBuf),
    /// A drawn key was refused: a mistake in Parlour.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The server's keys, at least one.
#[derive(Debug)]
pub struct ServerKeys {
    signing: Arc<SigningKey>,
    others: Vec<SigningKey>,
}

impl ServerKeys {
    /// The key that signs.
    #[must_use]
    pub fn signing(&self) -> &Arc<SigningKey> {
        &self.signing
    }

    /// All keys, the one that signs first.
    pub fn all(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&*self.signing).chain(&self.others)
    }

    /// Reads the keys of a data directory, or makes the first. Without a directory they are made
    /// anew each time.
    ///
    /// `in_use` says that there are events which the keys have signed: then none are made.
    ///
    /// # Errors
    ///
    /// [`ServerKeysError`]
    pub fn load(dir: Option<&Path>, in_use: bool, env: &Env) -> Result<Self, ServerKeysError> {
        let Some(dir) = dir else { return Self::parse(&draw(env), Path::new("memory")) };
        let path = key_file::path(dir);
        if let Some(text) = key_file::read(dir).map_err(io_error(&path))? {
            return Self::parse(&text, &path);
        }
        if in_use {
            return Err(ServerKeysError::Missing(path));
        }
        let text = draw(env);
        key_file::write(dir, &text).map_err(io_error(&path))?;
        Self::parse(&text, &path)
    }

    /// Puts a new key in front of those that a data directory has, if any: from the next start on
    /// it signs. Returns its id.
    ///
    /// # Errors
    ///
    /// [`ServerKeysError`]
    pub fn renew(dir: &Path, env: &Env) -> Result<String, ServerKeysError> {
        let path = key_file::path(dir);
        let old = key_file::read(dir).map_err(io_error(&path))?;
        let text = draw(env) + &old.unwrap_or_default();
        let keys = Self::parse(&text, &path)?;
        key_file::write(dir, &text).map_err(io_error(&path))?;
        Ok(keys.signing.key_id().to_owned())
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ServerKeysError> {
        let numbered = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        let keys = numbered.filter(|(_, line)| !line.is_empty()).map(|(line, key)| {
            let path = path.to_owned();
            parse_line(key).map_err(|what| ServerKeysError::Line { path, line, what })
        });
        let mut keys = keys.collect::<Result<Vec<_>, _>>()?.into_iter();
        let first = keys.next().ok_or_else(|| ServerKeysError::Empty(path.to_owned()))?;
        Ok(Self { signing: Arc::new(first), others: keys.collect() })
    }
}

/// A new key as a line of the file.
fn draw(env: &Env) -> String {
    let mut seed = [0; 32];
    env.secrets.fill(&mut seed);
    format!("{ALGORITHM} {} {}\n", env.random_string(6), hashes::encode_base64(&seed))
}

fn parse_line(line: &str) -> Result<SigningKey, String> {
    let mut words = line.split_whitespace();
    let (Some(ALGORITHM), Some(version), Some(seed), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("a key is written as `ed25519 VERSION SEED`".to_owned());
    };
    let seed = hashes::decode_base64_array(seed);
    let seed = seed.ok_or_else(|| "the seed is not base64 of 32 bytes".to_owned())?;
    SigningKey::from_seed(&seed, version).map_err(|error| error.to_string())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ServerKeysError {
    let path = path.to_owned();
    move |source| ServerKeysError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "ed25519 new YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n\n\
                       ed25519 a_old  XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI\n";

    fn ids(keys: &ServerKeys) -> Vec<&str> {
        keys.all().map(SigningKey::key_id).collect()
    }

    #[test]
    fn the_first_key_signs_and_all_are_published() {
        let keys = ServerKeys::parse(TWO, Path::new("x")).expect("two keys");
        assert_eq!(ids(&keys), ["ed25519:new", "ed25519:a_old"]);
        assert_eq!(keys.signing().key_id(), "ed25519:new");
        // The key of the specification's test vectors.
        let public = keys.signing().public_key().to_base64();
        assert_eq!(public, "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI");
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line_and_not_shown() {
        let secret = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW";
        for (text, place) in [
            (format!("ed25519 a {secret}"), "line 1"),
            (format!("ed25519 a-b {secret}+3XA1"), "line 1"),
            (format!("{TWO}rsa a {secret}+3XA1"), "line 4"),
            (format!("\n{secret}"), "line 2"),
            ("\n\n".to_owned(), "holds no key"),
        ] {
            let error = ServerKeys::parse(&text, Path::new("dir/signing.key")).expect_err("bad");
            let error = error.to_string();
            assert!(error.contains(place) && error.contains("dir/signing.key"), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
    }

    #[test]
    fn a_file_is_made_once_and_never_where_events_are_signed() {
        use std::os::unix::fs::PermissionsExt as _;

        let (dir, env) = (tempfile::tempdir().expect("dir"), Env::system());
        let missing = ServerKeys::load(Some(dir.path()), true, &env).expect_err("missing");
        assert!(matches!(missing, ServerKeysError::Missing(_)), "{missing}");
        let load = || ServerKeys::load(Some(dir.path()), true, &env).expect("keys");
        ServerKeys::load(Some(dir.path()), false, &env).expect("new keys");
        let first = load().signing().key_id().to_owned();
        let mode = std::fs::metadata(key_file::path(dir.path())).expect("file").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let second = ServerKeys::renew(dir.path(), &env).expect("another key");
        assert_eq!(ids(&load()), [&second, &first]);
    }
}
