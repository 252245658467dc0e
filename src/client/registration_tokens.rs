//! Registration tokens: who has one may make an account.

use parlour_actors::stored_tokens::{StoredTokens, TokenClaim};
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

    /// Takes hold of one use of a token, for an account that is about to be made. It counts with
    /// [`RegistrationTokens::complete`], and is free again if that does not come.
    ///
    /// # Errors
    /// 403 `M_FORBIDDEN` if the token cannot be used (any more).
    pub async fn claim(&self, token: &str) -> Result<TokenUse, ApiError> {
        if self.is_configured(token) {
            return Ok(TokenUse(None));
        }
        let claim = self.stored.claim(token).await?;
        let message = "The registration token is not valid any more";
        claim.map(|claim| TokenUse(Some(claim))).ok_or_else(|| ApiError::forbidden(message))
    }

    /// Counts a use: the account is made.
    ///
    /// # Errors
    /// If that cannot be stored.
    pub async fn complete(&self, TokenUse(claim): TokenUse) -> Result<(), ApiError> {
        match claim {
            Some(claim) => Ok(self.stored.complete(claim).await?),
            None => Ok(()),
        }
    }
}

/// One use of a token; those of the configuration are not counted.
#[derive(Debug)]
#[must_use]
pub struct TokenUse(Option<TokenClaim>);

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}
