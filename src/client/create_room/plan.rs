//! From the request to the list of a room's first events.

use actix_web::http::StatusCode;
use parlour_actors::{LocalEvent, NewRoom};
use parlour_event::{
    RoomVersion,
    json::{Object, Value},
};
use ruma::{
    OwnedRoomAliasId, OwnedUserId, RoomAliasId, UserId,
    api::{
        client::room::{
            Visibility,
            create_room::v3::{Request, RoomPreset},
        },
        error::ErrorCode,
    },
};

use super::{CreateRoomContext, power::Levels};
use crate::{
    client::{
        aliases::{aliases_in, bad_alias, check_own},
        local,
        membership::no_identity_server,
        state_checks::check_content,
    },
    error::ApiError,
    http::Ruma,
};

/// How many users can be invited with the room's creation.
const MAX_INVITES: usize = 200;

/// How many events of its own the client can give.
const MAX_INITIAL_STATE: usize = 500;

/// A piece of `initial_state`.
struct Initial {
    event_type: String,
    state_key: String,
    content: Object,
}

/// What the plan is made from.
struct Wish<'a> {
    context: &'a CreateRoomContext,
    request: &'a Request,
    /// The request's body as it came, for what ruma's type leaves out.
    body: Object,
    creator: &'a UserId,
    version: &'static RoomVersion,
    preset: RoomPreset,
    alias: Option<OwnedRoomAliasId>,
    /// Without repetitions.
    invited: Vec<OwnedUserId>,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) room: NewRoom,
    /// Users of other servers who are to be invited then, with the content of the invite.
    pub(super) remote: Vec<(OwnedUserId, Object)>,
}

/// Checks a request and works out what it asks for. Nothing is changed by it; the alias is held.
pub(super) fn plan(context: &CreateRoomContext, req: &Ruma<Request>) -> Result<Plan, ApiError> {
    let wish = Wish::of(context, req)?;
    let (create_content, events) = (wish.create_content()?, wish.events()?);
    let claim = |alias: &OwnedRoomAliasId| context.directory.claim(alias.as_str());
    let remote = wish.invited.iter().filter(|user| !wish.is_local(user));
    let remote = remote.map(|user| Ok((user.clone(), wish.member(user, "invite")?.content)));
    let remote = remote.collect::<Result<_, ApiError>>()?;
    let room = NewRoom {
        version: wish.version,
        creator: wish.creator.to_owned(),
        create_content,
        events,
        alias: wish.alias.as_ref().map(claim).transpose()?,
        published: req.visibility == Visibility::Public,
        made_for: None,
    };
    Ok(Plan { room, remote })
}

impl<'a> Wish<'a> {
    fn of(context: &'a CreateRoomContext, req: &'a Ruma<Request>) -> Result<Self, ApiError> {
        let body = match &*req.meta.body {
            [] => Object::new(),
            body => local::object(body)?,
        };
        let id = req.room_version.as_ref().unwrap_or(&context.default_version);
        let version = RoomVersion::get(id).ok_or_else(|| {
            let message = format!("This server does not support the room version {id}");
            let code = ErrorCode::UnsupportedRoomVersion;
            ApiError::new(StatusCode::BAD_REQUEST, code, message)
        })?;
        if !req.invite_3pid.is_empty() {
            return Err(no_identity_server());
        }
        Ok(Self {
            context,
            request: &req.request,
            body,
            creator: &req.caller.user_id,
            version,
            preset: preset(&req.request)?,
            alias: alias(context, &req.request)?,
            invited: invited(context, &req.caller.user_id, &req.request)?,
        })
    }

    fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.context.members.server_name
    }

    fn is_trusted(&self) -> bool {
        self.preset == RoomPreset::TrustedPrivateChat
    }

    /// A member of the body that must be an object if it is there.
    fn object(&self, key: &str) -> Result<Option<&Object>, ApiError> {
        match self.body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(ApiError::bad_json(format!("`{key}` must be an object"))),
        }
    }

    /// The content of `m.room.create`: what the client wants, except what is the server's to say.
    fn create_content(&self) -> Result<Object, ApiError> {
        let mut content = self.object("creation_content")?.cloned().unwrap_or_default();
        let is = |key: &str, right: fn(&Value) -> bool| content.get(key).is_none_or(right);
        if !is("m.federate", |value| value.as_bool().is_some())
            || !is("type", |value| value.as_str().is_some())
            || !is("predecessor", |value| value.as_object().is_some())
        {
            let message = "`m.federate`, `type` or `predecessor` has the wrong type";
            return Err(ApiError::bad_json(message));
        }
        fill_create_content(self.version, self.creator, &mut content);
        if self.version.rules().authorization.additional_room_creators {
            self.add_creators(&mut content)?;
        }
        Ok(content)
    }

    /// Adds those who are trusted with everything to the creators of the room.
    fn add_creators(&self, content: &mut Object) -> Result<(), ApiError> {
        let wrong = || ApiError::bad_json("`additional_creators` must be a list of user ids");
        let mut all: Vec<String> = Vec::new();
        if let Some(given) = content.remove("additional_creators") {
            for user in given.as_array().ok_or_else(wrong)? {
                let user = user.as_str().ok_or_else(wrong)?;
                <&UserId>::try_from(user).map_err(|_| wrong())?;
                all.push(user.to_owned());
            }
        }
        if self.is_trusted() {
            all.extend(self.invited.iter().map(ToString::to_string));
        }
        let mut seen = std::collections::HashSet::from([self.creator.to_string()]);
        all.retain(|user| seen.insert(user.clone()));
        if !all.is_empty() {
            let all = all.into_iter().map(Value::String).collect();
            content.insert("additional_creators".to_owned(), Value::Array(all));
        }
        Ok(())
    }

    /// The events behind the create event, in the order of the specification.
    fn events(&self) -> Result<Vec<LocalEvent>, ApiError> {
        let initial = self.initial_state()?;
        let mut events = vec![self.member(self.creator, "join")?];
        events.push(self.state("m.room.power_levels", self.power_levels()?));
        if let Some(alias) = &self.alias {
            let content = local::members([("alias", alias.as_str().into())]);
            events.push(self.state("m.room.canonical_alias", content));
        }
        events.extend(self.preset_events(&initial));
        events.extend(initial.into_iter().filter(|event| !self.is_overwritten(event)).map(
            |Initial { event_type, state_key, content }| {
                local::state_event(self.creator, &event_type, &state_key, content)
            },
        ));
        if let Some(name) = &self.request.name {
            let content = local::members([("name", name.as_str().into())]);
            events.push(self.state("m.room.name", content));
        }
        if let Some(topic) = &self.request.topic {
            events.push(self.state("m.room.topic", topic_content(topic)));
        }
        for user in self.invited.iter().filter(|user| self.is_local(user)) {
            events.push(self.member(user, "invite")?);
        }
        Ok(events)
    }

    fn state(&self, event_type: &str, content: Object) -> LocalEvent {
        local::state_event(self.creator, event_type, "", content)
    }

    fn member(&self, user: &UserId, membership: &str) -> Result<LocalEvent, ApiError> {
        let mut content = local::members([("membership", membership.into())]);
        if membership == "invite" && self.request.is_direct {
            content.insert("is_direct".to_owned(), true.into());
        }
        self.context.members.add_profile(user, &mut content)?;
        Ok(local::state_event(self.creator, "m.room.member", user.as_str(), content))
    }

    fn power_levels(&self) -> Result<Object, ApiError> {
        let trusted: &[_] = if self.is_trusted() { &self.invited } else { &[] };
        let levels = Levels {
            version: self.version,
            creator: self.creator,
            trusted,
            open_invites: self.preset != RoomPreset::PublicChat,
            wanted: self.object("power_level_content_override")?,
        };
        let content = levels.content();
        local::check_power_levels(&content)?;
        Ok(content)
    }

    /// What the preset says and `initial_state` does not.
    fn preset_events(&self, initial: &[Initial]) -> Vec<LocalEvent> {
        let rules = rules_of(&self.preset);
        let is_given = |kind: &str| initial.iter().any(|event| event.is(kind));
        let rules = rules.into_iter().filter(|(event_type, ..)| !is_given(event_type));
        rules
            .map(|(event_type, key, value)| {
                self.state(event_type, local::members([(key, value.into())]))
            })
            .collect()
    }

    /// Whether `name` or `topic` take the event's place.
    fn is_overwritten(&self, event: &Initial) -> bool {
        (self.request.name.is_some() && event.is("m.room.name"))
            || (self.request.topic.is_some() && event.is("m.room.topic"))
    }

    fn initial_state(&self) -> Result<Vec<Initial>, ApiError> {
        let events = match self.body.get("initial_state") {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(events)) => events,
            Some(_) => return Err(ApiError::bad_json("`initial_state` must be a list")),
        };
        if events.len() > MAX_INITIAL_STATE {
            let message = format!("`initial_state` can have {MAX_INITIAL_STATE} events");
            return Err(ApiError::invalid_param(message));
        }
        let events = events.iter().map(Initial::of).collect::<Result<Vec<_>, _>>()?;
        for event in &events {
            self.check_initial(event)?;
        }
        Ok(events)
    }

    /// The checks that the endpoints for single events make.
    fn check_initial(&self, event: &Initial) -> Result<(), ApiError> {
        let Initial { event_type, state_key, content } = event;
        check_content(event_type, state_key, content, &self.context.members.server_name)?;
        match event_type.as_str() {
            "m.room.canonical_alias" if state_key.is_empty() => {
                let own = self.alias.as_deref().map(RoomAliasId::as_str);
                let aliases = aliases_in(content)?;
                let foreign = aliases.iter().find(|alias| Some(alias.as_str()) != own);
                foreign.map_or(Ok(()), |alias| Err(bad_alias(alias)))
            }
            "m.room.member" => {
                let membership = content.get("membership").and_then(Value::as_str);
                match <&UserId>::try_from(state_key.as_str()) {
                    Ok(user) if membership == Some("invite") && !self.is_local(user) => {
                        let message = "Users of other servers can be invited by `invite` alone";
                        Err(ApiError::invalid_param(message))
                    }
                    Ok(user) if membership == Some("invite") => {
                        self.context.members.check_invitee(self.creator, user)
                    }
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

impl Initial {
    fn of(event: &Value) -> Result<Self, ApiError> {
        let wrong =
            |what: &str| ApiError::bad_json(format!("An event of `initial_state` needs {what}"));
        let event_type = event.get("type").and_then(Value::as_str);
        let content = event.get("content").and_then(Value::as_object);
        let state_key = match event.get("state_key") {
            None | Some(Value::Null) => "",
            Some(Value::String(state_key)) => state_key,
            Some(_) => return Err(wrong("a string as its `state_key`")),
        };
        Ok(Self {
            event_type: event_type.ok_or_else(|| wrong("a `type`"))?.to_owned(),
            state_key: state_key.to_owned(),
            content: content.ok_or_else(|| wrong("an object as its `content`"))?.clone(),
        })
    }

    /// Whether it is the state of this type with an empty key.
    fn is(&self, event_type: &str) -> bool {
        self.event_type == event_type && self.state_key.is_empty()
    }
}

/// What of `m.room.create` is the server's to say.
pub(super) fn fill_create_content(version: &RoomVersion, creator: &UserId, content: &mut Object) {
    content.remove("creator");
    if !version.rules().authorization.use_room_create_sender {
        content.insert("creator".to_owned(), creator.as_str().into());
    }
    content.insert("room_version".to_owned(), version.id().as_str().into());
}

/// The rules of a preset: event type, and the member of its content.
pub(super) fn rules_of(preset: &RoomPreset) -> [(&'static str, &'static str, &'static str); 3] {
    let (join_rule, guest_access) = match preset {
        RoomPreset::PublicChat => ("public", "forbidden"),
        _ => ("invite", "can_join"),
    };
    [
        ("m.room.join_rules", "join_rule", join_rule),
        ("m.room.history_visibility", "history_visibility", "shared"),
        ("m.room.guest_access", "guest_access", guest_access),
    ]
}

/// Without a preset, the visibility decides.
fn preset(request: &Request) -> Result<RoomPreset, ApiError> {
    let by_visibility = match &request.visibility {
        Visibility::Public => RoomPreset::PublicChat,
        Visibility::Private => RoomPreset::PrivateChat,
        other => return Err(ApiError::invalid_param(format!("There is no visibility {other}"))),
    };
    match request.preset.clone().unwrap_or(by_visibility) {
        preset @ (RoomPreset::PublicChat
        | RoomPreset::PrivateChat
        | RoomPreset::TrustedPrivateChat) => Ok(preset),
        other => Err(ApiError::invalid_param(format!("There is no preset {other}"))),
    }
}

fn alias(
    context: &CreateRoomContext,
    request: &Request,
) -> Result<Option<OwnedRoomAliasId>, ApiError> {
    let Some(name) = &request.room_alias_name else { return Ok(None) };
    let server = &context.members.server_name;
    let alias = OwnedRoomAliasId::try_from(format!("#{name}:{server}"))
        .map_err(|_| ApiError::invalid_param("`room_alias_name` is not valid"))?;
    // A colon in the name would move the border between name and server.
    if name.contains(':') {
        return Err(ApiError::invalid_param("`room_alias_name` is the part before the colon"));
    }
    check_own(&alias, server)?;
    Ok(Some(alias))
}

fn invited(
    context: &CreateRoomContext,
    inviter: &UserId,
    request: &Request,
) -> Result<Vec<OwnedUserId>, ApiError> {
    if request.invite.len() > MAX_INVITES {
        let message = format!("At most {MAX_INVITES} users can be invited at once");
        return Err(ApiError::invalid_param(message));
    }
    let mut invited: Vec<OwnedUserId> = Vec::new();
    for user in &request.invite {
        if !invited.contains(user) {
            context.members.check_invitee(inviter, user)?;
            invited.push(user.clone());
        }
    }
    Ok(invited)
}

/// The topic in the old form and in the new one, which says that it is plain text.
fn topic_content(topic: &str) -> Object {
    let text = local::members([("body", topic.into()), ("mimetype", "text/plain".into())]);
    let text = Value::Array(vec![Value::Object(text)]);
    let texts = local::members([("m.text", text)]);
    local::members([("topic", topic.into()), ("m.topic", Value::Object(texts))])
}
