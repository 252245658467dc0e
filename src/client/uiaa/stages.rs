//! The stages that there are: how each is passed, and what a client has to know for it.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    OwnedUserId, UserId,
    api::{
        client::uiaa::{AuthType, LoginTermsParams, PolicyDefinition, PolicyTranslation},
        error::ErrorCode,
    },
};
use serde_json::{Map, Value};

use super::guarded::Auth;
use crate::{
    client::{accounts::Accounts, registration_tokens::RegistrationTokens},
    config::Policy,
    error::ApiError,
};

/// Why a stage was not passed.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The error code.
    pub errcode: ErrorCode,
    /// The sentence for people.
    pub message: String,
}

impl Refusal {
    pub(super) fn new(errcode: ErrorCode, message: &str) -> Self {
        Self { errcode, message: message.to_owned() }
    }

    /// 401 `M_FORBIDDEN`: what the client gave is wrong.
    #[must_use]
    pub fn forbidden(message: &str) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }
}

/// What a passed stage has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing but good will.
    Nothing,
    /// Who the client is.
    User(OwnedUserId),
    /// The registration token that it has.
    RegistrationToken(String),
    /// The documents that were accepted: id and version.
    Terms(Vec<(String, String)>),
}

/// What stages are checked with.
#[derive(Debug)]
pub struct Stages {
    /// Whose passwords they are.
    pub accounts: Arc<Accounts>,
    /// Who may make an account.
    pub tokens: Arc<RegistrationTokens>,
    /// What new users have to accept.
    pub policies: Vec<Policy>,
}

impl Stages {
    /// Checks one stage. If the request is some user's (`owner`), the password must be that user's.
    pub(super) async fn verify(
        &self,
        stage: &AuthType,
        auth: &Auth,
        owner: Option<&UserId>,
    ) -> Result<Result<Proof, Refusal>, ApiError> {
        Ok(match stage {
            AuthType::Dummy => Ok(Proof::Nothing),
            AuthType::Terms => Ok(Proof::Terms(self.versions())),
            AuthType::RegistrationToken => {
                let token = auth.token.as_deref();
                let token =
                    token.ok_or_else(|| ApiError::missing_param("`auth` has no `token`"))?;
                match self.tokens.is_valid(token)? {
                    true => Ok(Proof::RegistrationToken(token.to_owned())),
                    false => Err(Refusal::forbidden("The registration token is not valid")),
                }
            }
            AuthType::Password => self.password(auth, owner).await?,
            _ => Err(Refusal::new(ErrorCode::Unrecognized, "This server has no such stage")),
        })
    }

    async fn password(
        &self,
        auth: &Auth,
        owner: Option<&UserId>,
    ) -> Result<Result<Proof, Refusal>, ApiError> {
        let password = auth.password.clone();
        let password =
            password.ok_or_else(|| ApiError::missing_param("`auth` has no `password`"))?;
        let named = self.accounts.named(auth.identifier.as_ref(), auth.user.as_deref())?;
        // A stranger's right password is as wrong as any other, and takes as long.
        let named = named.filter(|named| owner.is_none_or(|owner| named == owner));
        let user = self.accounts.check_password(named, password).await?;
        Ok(user
            .map(Proof::User)
            .ok_or_else(|| Refusal::forbidden("The user name or the password is wrong")))
    }

    fn versions(&self) -> Vec<(String, String)> {
        let policies = self.policies.iter();
        policies.map(|policy| (policy.id.clone(), policy.version.clone())).collect()
    }

    /// What a client has to know to do these flows.
    pub(super) fn params(&self, flows: &[Vec<AuthType>]) -> Result<Map<String, Value>, ApiError> {
        let mut params = Map::new();
        if flows.iter().flatten().any(|stage| *stage == AuthType::Terms) {
            let policies = self.policies.iter().map(definition).collect();
            let terms = serde_json::to_value(LoginTermsParams::new(policies));
            let terms = terms.map_err(ApiError::internal)?;
            params.insert(AuthType::Terms.as_str().to_owned(), terms);
        }
        Ok(params)
    }
}

fn definition(policy: &Policy) -> (String, PolicyDefinition) {
    let languages = policy.languages.iter().map(|(language, text)| {
        (language.clone(), PolicyTranslation::new(text.name.clone(), text.url.clone()))
    });
    let languages: BTreeMap<_, _> = languages.collect();
    (policy.id.clone(), PolicyDefinition::new(policy.version.clone(), languages))
}
