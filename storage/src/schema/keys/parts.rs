//! What keys are put together from, and taken apart into.

use bytes::Bytes;

/// Separates strings in a key. It sorts before every other byte, so that a scan of one user's
/// keys does not meet those of a user with a longer name.
const SEPARATOR: u8 = 0;

/// Builds a key part by part.
#[derive(Debug)]
pub struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    /// Starts a key in this keyspace.
    #[must_use]
    pub fn new(keyspace: u8) -> Self {
        let mut key = Vec::with_capacity(64);
        key.push(keyspace);
        Self(key)
    }

    /// Goes on behind the common start of some keys.
    #[must_use]
    pub fn within(start: &[u8]) -> Self {
        let mut key = Vec::with_capacity(start.len() + 64);
        key.extend_from_slice(start);
        Self(key)
    }

    /// Adds a number, big-endian.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_be_bytes());
        self
    }

    /// Adds a string and the separator. A separator within the string would make two keys out of
    /// one, so it is escaped (`00` becomes `01 02`, `01` becomes `01 03`); order is kept.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        for byte in text.bytes() {
            match byte {
                0 => self.0.extend_from_slice(&[1, 2]),
                1 => self.0.extend_from_slice(&[1, 3]),
                byte => self.0.push(byte),
            }
        }
        self.0.push(SEPARATOR);
        self
    }

    /// Adds a byte that tells kinds of keys apart.
    #[must_use]
    pub fn kind(mut self, kind: u8) -> Self {
        self.0.push(kind);
        self
    }

    /// Adds bytes as they are; only sensible at the end.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The key.
    #[must_use]
    pub fn build(self) -> Bytes {
        self.0.into()
    }
}

/// Reads a key part by part; the counterpart of [`KeyBuilder`].
#[derive(Debug)]
pub struct KeyReader<'a>(&'a [u8]);

impl<'a> KeyReader<'a> {
    /// Starts behind the keyspace byte.
    #[must_use]
    pub fn new(key: &'a [u8]) -> Self {
        Self(key.get(1..).unwrap_or_default())
    }

    /// Starts at the beginning of a part of a key.
    #[must_use]
    pub fn of_part(part: &'a [u8]) -> Self {
        Self(part)
    }

    /// The next number, if there is one.
    pub fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_be_bytes(*number))
    }

    /// The next string, if there is one.
    pub fn text(&mut self) -> Option<String> {
        let end = self.0.iter().position(|byte| *byte == SEPARATOR)?;
        let (escaped, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        let mut bytes = Vec::with_capacity(escaped.len());
        let mut input = escaped.iter();
        while let Some(byte) = input.next() {
            bytes.push(match byte {
                1 => input.next()?.checked_sub(2)?,
                byte => *byte,
            });
        }
        String::from_utf8(bytes).ok()
    }
}

/// The two numbers at the end of a key.
#[must_use]
pub fn last_numbers(key: &[u8]) -> Option<(u64, u64)> {
    let (rest, second) = key.split_last_chunk::<8>()?;
    let (_, first) = rest.split_last_chunk::<8>()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(*second)))
}

/// The number at the end of a key.
#[must_use]
pub fn last_number(key: &[u8]) -> Option<u64> {
    key.last_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}
