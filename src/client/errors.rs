//! What clients are told when a part below fails.

use std::time::Duration;

use actix_web::http::StatusCode;
use parlour_actors::users::{
    AccountDataError, FilterError, ProfileError, PushRulesError, RegisterError, ThreadError,
    UserError,
};
use parlour_actors::{
    PolicyError, RelationError, RoomError, delayed::DelayedError, directory::AliasError,
    persister::PersistError, reports::ReportError,
};
use parlour_event::auth::AuthError;
use parlour_storage::StorageError;
use ruma::api::error::ErrorCode;

use super::passwords::PasswordError;
use crate::{
    error::ApiError,
    federation::outbound::{client::AskError, transport::TransportError},
};

/// After what time somebody who was refused for want of room may come again.
const BUSY: Duration = Duration::from_secs(1);

/// After what time somebody may come again who waits for delayed events to be sent.
const TOO_MANY_DELAYED: Duration = Duration::from_secs(10);

/// After what time there may be room that somebody has to make.
const TOO_MANY: Duration = Duration::from_secs(3_600);

fn bad_request(errcode: ErrorCode, message: impl ToString) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, errcode, message.to_string())
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::internal(error)
    }
}

impl From<AskError> for ApiError {
    /// What another server refuses for a reason that clients know, they are told. All else is its
    /// failure, not ours.
    fn from(error: AskError) -> Self {
        let gateway = |status, message: &str| Self::new(status, ErrorCode::Unknown, message);
        match error {
            AskError::NotAllowed(_) => Self::forbidden("This server is not spoken to"),
            AskError::Refused { status: 404, .. } => Self::not_found("The other server knows none"),
            AskError::Refused { status: 403, .. } => Self::forbidden("The other server refuses"),
            AskError::Transport(TransportError::Stopped) => Self::unavailable(error),
            AskError::Transport(TransportError::Timeout) => {
                gateway(StatusCode::GATEWAY_TIMEOUT, "The other server does not answer in time")
            }
            AskError::Request(why) => Self::internal(why),
            AskError::Refused { .. } | AskError::Answer(_) | AskError::Transport(_) => {
                gateway(StatusCode::BAD_GATEWAY, "The other server gives no answer")
            }
        }
    }
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        match error {
            UserError::Storage(error) => Self::internal(error),
            UserError::Persist(error) => Self::unavailable(error),
            UserError::Busy => Self::limit_exceeded(BUSY),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Taken => bad_request(ErrorCode::UserInUse, error),
            RegisterError::User(error) => error.into(),
        }
    }
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::UnknownUser => Self::not_found(error.to_string()),
            ProfileError::TooLarge => bad_request(ErrorCode::ProfileTooLarge, error),
            ProfileError::User(error) => error.into(),
        }
    }
}

impl From<AccountDataError> for ApiError {
    fn from(error: AccountDataError) -> Self {
        match error {
            AccountDataError::TooMuch => Self::too_large(error.to_string()),
            AccountDataError::User(error) => error.into(),
        }
    }
}

impl From<PushRulesError> for ApiError {
    fn from(error: PushRulesError) -> Self {
        match error {
            PushRulesError::NotFound => Self::not_found(error.to_string()),
            PushRulesError::UnknownNeighbour => bad_request(ErrorCode::Unknown, error),
            PushRulesError::Invalid(why) => Self::invalid_param(why),
            PushRulesError::TooMany => Self::invalid_param(error.to_string()),
            PushRulesError::Data(error) => error.into(),
            PushRulesError::User(error) => error.into(),
        }
    }
}

impl From<ThreadError> for ApiError {
    fn from(error: ThreadError) -> Self {
        match error {
            ThreadError::Unsubscribed => {
                let code = ErrorCode::ConflictingUnsubscription;
                Self::new(StatusCode::CONFLICT, code, error.to_string())
            }
            ThreadError::TooMany => Self::invalid_param(error.to_string()),
            ThreadError::Data(error) => error.into(),
            ThreadError::User(error) => error.into(),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::TooMany => Self::too_large(error.to_string()),
            FilterError::User(error) => error.into(),
        }
    }
}

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::limit_exceeded(BUSY),
            PasswordError::Hash(_) | PasswordError::Stopped => Self::internal(error),
        }
    }
}

impl From<RoomError> for ApiError {
    /// Whether a room exists is nobody's business who is not in it.
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::NoGuests => Self::guest_access_forbidden(),
            RoomError::UnknownRoom => Self::forbidden("You are not in this room"),
            RoomError::Forbidden(AuthError::StateKeyWithoutOwner) => {
                Self::bad_json(error.to_string())
            }
            RoomError::Forbidden(_)
            | RoomError::WrongMembership { .. }
            | RoomError::RefusedBefore => Self::forbidden(error.to_string()),
            RoomError::Format(format) if format.is_too_large() => {
                Self::too_large(format.to_string())
            }
            RoomError::Format(format) => Self::bad_json(format.to_string()),
            RoomError::Relation(RelationError::Duplicate) => {
                bad_request(ErrorCode::DuplicateAnnotation, error)
            }
            RoomError::Relation(RelationError::NoRoot) => bad_request(ErrorCode::Unknown, error),
            RoomError::CreateRefused => bad_request(ErrorCode::InvalidRoomState, error),
            RoomError::OtherRoom => bad_request(ErrorCode::Unknown, error),
            RoomError::BadEntrance(_) => {
                Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, error.to_string())
            }
            RoomError::Policy(error) => error.into(),
            RoomError::Busy | RoomError::Persist(PersistError::Busy) => Self::limit_exceeded(BUSY),
            RoomError::Persist(error) => Self::unavailable(error),
            other => Self::internal(other),
        }
    }
}

impl From<PolicyError> for ApiError {
    /// What a policy server says goes to the client as it is, unless clients would take it for
    /// something else: that their login has ended, or that this server has failed.
    fn from(error: PolicyError) -> Self {
        let gateway = |why: &str| Self::new(StatusCode::BAD_GATEWAY, ErrorCode::Unknown, why);
        let (status, errcode, message, retry_after) = match error {
            PolicyError::Refused { status, errcode, message, retry_after } => {
                (status, errcode, message, retry_after)
            }
            PolicyError::Silent(_) => return gateway(&error.to_string()),
        };
        let message = match message.is_empty() {
            true => "The room's policy server refuses".to_owned(),
            false => message,
        };
        let errcode = errcode.map(ErrorCode::from).filter(|errcode| !is_of_session(errcode));
        let errcode = errcode.unwrap_or(ErrorCode::Forbidden);
        match status {
            429 => Self::limit_exceeded(retry_after.unwrap_or(BUSY)),
            400 => Self::new(StatusCode::BAD_REQUEST, errcode, message),
            404 => Self::new(StatusCode::NOT_FOUND, errcode, message),
            403 => Self::new(StatusCode::FORBIDDEN, errcode, message),
            _ => gateway(&message),
        }
    }
}

/// Whether an error says something of the login of whoever gets it.
fn is_of_session(errcode: &ErrorCode) -> bool {
    matches!(
        errcode,
        ErrorCode::UnknownToken
            | ErrorCode::MissingToken
            | ErrorCode::UserLocked
            | ErrorCode::UserSuspended
            | ErrorCode::UserDeactivated
    )
}

impl From<DelayedError> for ApiError {
    fn from(error: DelayedError) -> Self {
        match error {
            DelayedError::Unknown => Self::not_found(error.to_string()),
            DelayedError::TooMany => Self::limit_exceeded(TOO_MANY_DELAYED),
            DelayedError::Silenced => Self::forbidden(error.to_string()),
            DelayedError::Room(error) => error.into(),
            DelayedError::User(error) => error.into(),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::TooMany => Self::limit_exceeded(TOO_MANY),
            ReportError::User(error) => error.into(),
        }
    }
}

impl From<AliasError> for ApiError {
    fn from(error: AliasError) -> Self {
        match error {
            AliasError::Taken => bad_request(ErrorCode::RoomInUse, error),
            AliasError::TooMany => bad_request(ErrorCode::InvalidParam, error),
            AliasError::User(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parlour_actors::persister::PersistError;
    use parlour_storage::StorageError;

    use super::*;

    #[test]
    fn what_storage_refuses_is_no_fault_of_the_client() {
        let full = || Arc::new(StorageError::Stopped("the disk is full".to_owned()));
        for error in [
            UserError::Storage(full()),
            UserError::Persist(PersistError::Storage(full())),
            UserError::Persist(PersistError::Stopped),
        ] {
            assert!(ApiError::from(error).status().is_server_error());
        }
    }
}
