use crate::content::{LevelError, PowerLevel};

/// The authorisation rule that forbids an event, as a text for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// `m.room.create`: "If it has any `prev_events`, reject."
    #[error("the event that creates the room cannot follow other events")]
    CreateHasPrevEvents,
    /// `m.room.create`, versions 1 to 11: the domains of `room_id` and `sender` differ.
    #[error("the room ID does not belong to the server of the room's creator")]
    CreateRoomIdDomain,
    /// `m.room.create`, version 12: "If the event has a `room_id`, reject."
    #[error("the event that creates the room cannot have a room ID")]
    CreateHasRoomId,
    /// `m.room.create`: the room has one already, on which all that is known of it builds.
    #[error("the room was created by another event")]
    SecondCreate,
    /// `m.room.create`: `room_version` is not a recognised version.
    #[error("the room version is unknown")]
    UnknownRoomVersion,
    /// `m.room.create`, versions 1 to 10: there is no `creator`.
    #[error("the event that creates the room has no `creator`")]
    CreateWithoutCreator,
    /// `m.room.create`, version 12: `additional_creators` is not an array of user ids.
    #[error("`additional_creators` is not an array of user IDs")]
    BadAdditionalCreators,
    /// Version 12: "If the event's `room_id` is not an event ID for an accepted `m.room.create`
    /// event, with the sigil `!` instead of `$`, reject."
    #[error("the room ID is not made from the event that created the room")]
    RoomIdNotCreate,
    /// The state has no `m.room.create`.
    #[error("the room has no event that created it")]
    NoCreateEvent,

    /// The auth events: "duplicate entries for a given `type` and `state_key` pair".
    #[error("two of the auth events are {event_type} with the state key `{state_key}`")]
    DuplicateAuthEvent {
        /// Their type
        event_type: String,
        /// Their state key
        state_key: String,
    },
    /// The auth events: one that the selection does not specify.
    #[error("{event_id} of type {event_type} must not be among the auth events")]
    UnexpectedAuthEvent {
        /// Its id
        event_id: String,
        /// Its type
        event_type: String,
    },
    /// The auth events: one that was itself rejected.
    #[error("the auth event {event_id} was rejected")]
    RejectedAuthEvent {
        /// Its id
        event_id: String,
    },
    /// The auth events, versions 1 to 11: no `m.room.create` among them.
    #[error("the auth events lack the event that created the room")]
    AuthEventsWithoutCreate,
    /// The auth events: one whose `room_id` does not match.
    #[error("the auth event {event_id} belongs to another room")]
    AuthEventOfOtherRoom {
        /// Its id
        event_id: String,
    },

    /// `m.federate` is `false`, and the sender's domain is not that of the room's creator.
    #[error("this room is closed to users of other servers")]
    NotFederated,
    /// `m.room.aliases`, versions 1 to 5: the state key is not the sender's domain.
    #[error("the state key of m.room.aliases must be your own server's name")]
    AliasesOfOtherServer,

    /// `m.room.member`: there is no `state_key`, or it is not a user id.
    #[error("the state key of m.room.member must be a user ID")]
    MemberStateKey,
    /// `m.room.member`: there is no `membership`, or it is not a string.
    #[error("the m.room.member event has no `membership`")]
    NoMembership,
    /// `m.room.member`: the membership is unknown in this room version.
    #[error("the membership `{membership}` is unknown in this room version")]
    UnknownMembership {
        /// What stands there
        membership: String,
    },
    /// `m.room.member`, from version 8: `join_authorised_via_users_server` names nobody whose
    /// server could have signed the event.
    #[error("`join_authorised_via_users_server` is not a user ID")]
    AuthorisingUserId,
    /// `join` and `knock`: "If the `sender` does not match `state_key`, reject."
    #[error("you can {membership} only for yourself")]
    SenderIsNotTarget {
        /// The membership
        membership: &'static str,
    },
    /// `join`: "If the `sender` is banned, reject."
    #[error("you are banned from this room")]
    SenderBanned,
    /// `join`: the join rule lets in only who is invited.
    #[error("you are not invited to this room (its join rule is `{join_rule}`)")]
    NotInvited {
        /// The join rule
        join_rule: &'static str,
    },
    /// `join` under a join rule that the room version does not know, or that lets nobody in.
    #[error("nobody can join this room under its join rule")]
    JoinForbidden,
    /// `join`, restricted: the authorising user is missing or not joined.
    #[error("to join, you need an invitation or the consent of a member's server")]
    AuthorisingUserNotJoined,
    /// `join`, restricted: the authorising user must not invite.
    #[error(
        "{user}, whose server let you in, needs power {needed} to invite users, and has {have}"
    )]
    AuthorisingUserPower {
        /// The authorising user
        user: String,
        /// The invite level
        needed: i64,
        /// The user's power level
        have: PowerLevel,
    },
    /// `invite`: "If *target user*'s current membership state is `join` or `ban`, reject."
    #[error("{user} is already in the room")]
    TargetJoined {
        /// The target user
        user: String,
    },
    /// `invite`: the target user is banned.
    #[error("{user} is banned from this room")]
    TargetBanned {
        /// The target user
        user: String,
    },
    /// `invite` with `third_party_invite`: no `signed`, or no `mxid` and `token` in it.
    #[error("`third_party_invite` lacks `{field}`")]
    ThirdPartyInviteLacks {
        /// What is missing
        field: &'static str,
    },
    /// `invite` with `third_party_invite`: "If `mxid` does not match `state_key`, reject."
    #[error("the third-party invite is for another user")]
    ThirdPartyInviteUser,
    /// `invite` with `third_party_invite`: no `m.room.third_party_invite` matches `token`.
    #[error("the room has no third-party invite with this token")]
    NoThirdPartyInvite,
    /// `invite` with `third_party_invite`: the sender is not that of the
    /// `m.room.third_party_invite`.
    #[error("the third-party invite was sent by someone else")]
    ThirdPartyInviteSender,
    /// `invite` with `third_party_invite`: no signature matches any public key.
    #[error("no signature of the third-party invite matches its public keys")]
    ThirdPartyInviteSignature,
    /// `leave`: "allow if and only if that user's current membership state is …".
    #[error("you cannot leave a room that you are not in")]
    NothingToLeave,
    /// `leave` and `ban`: the target user's power level is not less than the sender's.
    #[error("you cannot {action} {user}: their power, {theirs}, is not below yours, {yours}")]
    TargetPower {
        /// `kick`, `unban` or `ban`
        action: &'static str,
        /// The target user
        user: String,
        /// The target user's power level
        theirs: PowerLevel,
        /// The sender's power level
        yours: PowerLevel,
    },
    /// `knock`: the join rule does not allow it.
    #[error("one cannot knock on this room (its join rule is `{join_rule}`)")]
    KnockForbidden {
        /// The join rule
        join_rule: &'static str,
    },
    /// `knock`: the membership is `ban`, `invite` or `join`.
    #[error("you cannot knock while your membership is `{membership}`")]
    KnockMembership {
        /// The sender's current membership
        membership: &'static str,
    },

    /// "If the `sender`'s current membership state is not `join`, reject."
    #[error("you are not in this room")]
    SenderNotJoined,
    /// The sender's power level is below what is required.
    #[error("you need power {needed} {action}, you have {have}")]
    NotEnoughPower {
        /// What needs the power: `to send m.room.name`
        action: String,
        /// The level that is required
        needed: i64,
        /// The sender's power level
        have: PowerLevel,
    },
    /// "If the event has a `state_key` that starts with an `@` and does not match the `sender`,
    /// reject."
    #[error("the state key of this event must not be another user's ID")]
    OtherUsersStateKey,
    /// MSC3757: a state key that starts with an `@` and names no user.
    #[error("the state key is neither a user ID nor one with an underscore behind it")]
    StateKeyWithoutOwner,

    /// The power levels, those that are sent or those of the room, break the room version's format.
    #[error(transparent)]
    Levels(#[from] LevelError),
    /// `m.room.power_levels`, version 12: a creator is in `users`.
    #[error("{user} created this room and cannot be given a power level")]
    CreatorInUsers {
        /// The creator
        user: String,
    },
    /// `m.room.power_levels`: the current or the new value is above the sender's power level.
    #[error("you cannot change the power level `{field}`: {level} is above your power, {have}")]
    LevelAbovePower {
        /// The property, with its place: `events.m.room.name`
        field: String,
        /// The value that is too high
        level: i64,
        /// The sender's power level
        have: PowerLevel,
    },
    /// `m.room.power_levels`: another user has the sender's power level or more.
    #[error("you cannot change the power of {user}: theirs, {level}, is not below yours, {have}")]
    LevelOfPeer {
        /// The other user
        user: String,
        /// The other user's power level
        level: i64,
        /// The sender's power level
        have: PowerLevel,
    },

    /// A member event of the state has no known membership: such an event is never accepted.
    #[error("the membership of {user} in the room's state is malformed")]
    MalformedMembership {
        /// The user
        user: String,
    },
}
