//! What is said to other servers of users' devices and keys: what the queues ask for.

use std::fmt;

use bytes::Bytes;
use parlour_storage::{StorageError, schema::DeviceUpdate};

/// Writes EDUs about the keys of users here, as they are now; none if there is nothing to say.
///
/// Specification: <https://spec.matrix.org/v1.19/server-server-api/#device-management>
pub trait KeyTeller: Send + Sync + fmt::Debug {
    /// The `m.device_list_update` of a device.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    fn device(&self, user: &str, update: &DeviceUpdate) -> Result<Option<Bytes>, StorageError>;

    /// The `m.signing_key_update` of a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    fn signing_keys(&self, user: &str) -> Result<Option<Bytes>, StorageError>;
}
