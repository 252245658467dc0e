//! Registration tokens: who has one may make an account.

use parlour_actors::stored_tokens::StoredTokens;
use sha2::{Digest, Sha256};

use crate::{config::RegistrationMode, error::ApiError};

/// All tokens that there are.
pub struct RegistrationTokens {
    /// The hashes of those in the configuration, which can be used for ever.
    configured: Vec<[u8; 32]>,
    /// Those that administrators have handed out.
    stored: StoredTokens,
}

impl std::fmt::Debug for RegistrationTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrationTokens").finish_non_exhaustive()
    }
}

impl RegistrationTokens {
    /// The tokens of the configuration and those of administrators.
    #[must_use]
    pub fn new(mode: &RegistrationMode, stored: StoredTokens) -> Self {
        let configured = match mode {
            RegistrationMode::Token(tokens) => tokens.iter().map(|token| hash(token)).collect(),
            _ => Vec::new(),
        };
        Self { configured, stored }
    }

    /// Whether a token would let somebody in at this moment.
    ///
    /// # Errors
    /// If storage cannot be read.
    pub fn is_valid(&self, token: &str) -> Result<bool, ApiError> {
        Ok(self.is_configured(token) || self.stored.is_valid(token)?)
    }

    /// Hashes are compared, so that the time does not tell how much of a token was right.
    fn is_configured(&self, token: &str) -> bool {
        self.configured.contains(&hash(token))
    }

    /// Uses a token for an account that is about to be made; says whether it was still valid.
    ///
    /// # Errors
    /// If storage cannot be read or written.
    pub async fn spend(&self, token: &str) -> Result<bool, ApiError> {
        if self.is_configured(token) {
            return Ok(true);
        }
        let Some(claim) = self.stored.claim(token)? else { return Ok(false) };
        self.stored.complete(claim).await?;
        Ok(true)
    }
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
