//! How typed values become bytes and back.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::StorageError;

/// The version byte in front of every encoded value.
const VERSION: u8 = 1;

/// A value with a typed place in the index.
pub trait Stored: Serialize + DeserializeOwned {
    /// The value's bytes.
    fn encode(&self) -> Bytes {
        postcard::to_extend(self, vec![VERSION])
            .expect("writing plain data to a growing buffer cannot fail")
            .into()
    }

    /// Reads the value back.
    ///
    /// # Errors
    ///
    /// [`StorageError::Value`], naming the key, if the bytes are not such a value.
    fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, StorageError> {
        let unreadable =
            |what: String| StorageError::Value { key: super::keys::readable(key), what };
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                postcard::from_bytes(rest).map_err(|error| unreadable(error.to_string()))
            }
            Some((version, _)) => Err(unreadable(format!("value version {version} is unknown"))),
            None => Err(unreadable("it is empty".to_owned())),
        }
    }
}

/// Reads a number out of an index value.
pub(super) fn decode_number(key: &[u8], bytes: &[u8]) -> Result<u64, StorageError> {
    let bytes = bytes.try_into().map_err(|_| StorageError::Value {
        key: super::keys::readable(key),
        what: "it is not a number of 8 bytes".to_owned(),
    })?;
    Ok(u64::from_be_bytes(bytes))
}
