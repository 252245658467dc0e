//! Public rooms that nobody has asked for by `createRoom`, as that would make them.

use parlour_actors::{NewRoom, users::add_profile};
use parlour_event::{RoomVersion, json::Object};
use parlour_storage::schema::User;
use ruma::{UserId, api::client::room::create_room::v3::RoomPreset};

use super::{
    plan::{fill_create_content, rules_of},
    power::Levels,
};
use crate::client::local;

/// What the preset `public_chat` makes of a name alone.
pub(crate) fn public_room(
    version: &'static RoomVersion,
    creator: &UserId,
    account: &User,
    name: &str,
) -> NewRoom {
    let mut create_content = Object::new();
    fill_create_content(version, creator, &mut create_content);
    let mut join = local::members([("membership", "join".into())]);
    add_profile(account, &mut join);
    let levels = Levels { version, creator, trusted: &[], open_invites: false, wanted: None };
    let state = |event_type, content| local::state_event(creator, event_type, "", content);
    let mut events = vec![
        local::state_event(creator, "m.room.member", creator.as_str(), join),
        state("m.room.power_levels", levels.content()),
    ];
    let rules = rules_of(&RoomPreset::PublicChat).into_iter();
    events.extend(
        rules.map(|(event_type, key, value)| {
            state(event_type, local::members([(key, value.into())]))
        }),
    );
    events.push(state("m.room.name", local::members([("name", name.into())])));
    let creator = creator.to_owned();
    NewRoom {
        version,
        creator,
        create_content,
        events,
        alias: None,
        published: false,
        made_for: None,
    }
}
