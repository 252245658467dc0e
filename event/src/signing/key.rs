//! Ed25519 keys with their Matrix names.

use std::fmt;

use ed25519_dalek::{Signature, Signer as _, Verifier as _};

use crate::hashes;

/// Why something is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The part of the key id after `ed25519:` has characters that are not allowed.
    #[error("`{0}` is no key version: letters, digits and underscores are allowed")]
    BadVersion(String),
    /// The bytes are no point of the curve, or not 32 bytes of base64.
    #[error("not an Ed25519 public key")]
    BadPublicKey,
}

/// A key with which this server signs.
#[derive(Clone)]
pub struct SigningKey {
    key: ed25519_dalek::SigningKey,
    key_id: Box<str>,
}

impl SigningKey {
    /// Makes the key from its 32-byte seed, which the caller keeps or draws at random.
    /// The key's id will be `ed25519:` and `version`.
    ///
    /// # Errors
    ///
    /// [`KeyError::BadVersion`].
    pub fn from_seed(seed: &[u8; 32], version: &str) -> Result<Self, KeyError> {
        // Stricter than ruma's check, which takes letters of any script.
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if version.is_empty() || !version.bytes().all(is_allowed) {
            return Err(KeyError::BadVersion(version.to_owned()));
        }
        Ok(Self {
            key: ed25519_dalek::SigningKey::from_bytes(seed),
            key_id: format!("ed25519:{version}").into(),
        })
    }

    /// The key's id, such as `ed25519:a_1`.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The key with which others check the signatures.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    /// The signature over some bytes.
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// A key that checks signatures. Ready for use: making one from bytes costs about as much as
/// a third of a check, so a key ring should keep these.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

impl PublicKey {
    /// Reads a key.
    ///
    /// # Errors
    ///
    /// [`KeyError::BadPublicKey`].
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes);
        key.map(Self).map_err(|_| KeyError::BadPublicKey)
    }

    /// Reads a key in base64, as servers publish them.
    ///
    /// # Errors
    ///
    /// [`KeyError::BadPublicKey`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        let bytes = hashes::decode_base64_array(text).ok_or(KeyError::BadPublicKey)?;
        Self::from_bytes(&bytes)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key in unpadded base64.
    #[must_use]
    pub fn to_base64(&self) -> String {
        hashes::encode_base64(self.0.as_bytes())
    }

    /// Whether this is the key's signature over these bytes.
    #[must_use]
    pub fn verifies(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey").field(&self.to_base64()).finish()
    }
}
