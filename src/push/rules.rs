//! What a user's push rules say of an event.

use std::future::ready;

use futures_util::FutureExt as _;
use parlour_actors::users::Users;
use parlour_event::{EventNum, RoomNum, state::StateRoot};
use parlour_storage::schema::{StoredEvent, Subscription, TimelineEntry};
use ruma::{
    OwnedRoomId, OwnedUserId, UInt, UserId,
    events::{
        AnySyncTimelineEvent,
        room::power_levels::{RoomPowerLevels, RoomPowerLevelsEventContent, RoomPowerLevelsSource},
    },
    push::{
        Action, AnyPushRuleRef, EventMatchConditionData, FlattenedJson, PushCondition,
        PushConditionRoomCtx, Ruleset,
    },
    serde::Raw,
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::view::{Fields, RoomView, View, ViewError};

/// What the rules have an event do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The user is notified.
    pub notify: bool,
    /// And it is made conspicuous.
    pub highlight: bool,
}

/// Judges events of one room for one user.
#[derive(Debug)]
pub struct Judge<'a> {
    view: &'a View,
    room: &'a RoomView,
    rules: &'a Ruleset,
    context: PushConditionRoomCtx,
    /// The state, and the power levels in it, that the context stands for.
    state: Option<StateRoot>,
    power_levels: Option<EventNum>,
}

#[derive(Deserialize)]
struct Profile {
    #[serde(default)]
    displayname: Option<String>,
}

#[derive(Deserialize)]
struct Creators {
    #[serde(default)]
    additional_creators: Vec<OwnedUserId>,
}

impl<'a> Judge<'a> {
    /// `member` is the user's member event, which has the name that is looked for.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn new(
        view: &'a View,
        room: &'a RoomView,
        (users, rules): (&Users, &'a Ruleset),
        user: &UserId,
        member: &StoredEvent,
    ) -> Result<Self, ViewError> {
        let name = name_in(member)?;
        let (room_id, owner) = (room.room_id.clone(), user.to_owned());
        let mut context = PushConditionRoomCtx::new(room_id, UInt::MIN, owner, name);
        if !rules.postcontent.is_empty() {
            context = hear_threads(context, users.clone(), user.to_owned(), room.num);
        }
        Ok(Self { view, room, rules, context, state: None, power_levels: None })
    }

    /// What becomes of an event. `entry` has the room as it was then.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn judge(
        &mut self,
        event: &StoredEvent,
        entry: &TimelineEntry,
    ) -> Result<Verdict, ViewError> {
        Ok(Verdict::of(self.actions(event, entry)?))
    }

    /// The actions of the first rule that an event matches.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn actions(
        &mut self,
        event: &StoredEvent,
        entry: &TimelineEntry,
    ) -> Result<&'a [Action], ViewError> {
        self.set_state(entry)?;
        matching(self.rules, event, &self.context)
    }

    fn set_state(&mut self, entry: &TimelineEntry) -> Result<(), ViewError> {
        self.context.member_count = UInt::new(entry.joined).unwrap_or(UInt::MAX);
        let root = entry.state_after;
        if self.state == Some(root) {
            return Ok(());
        }
        let num = self.view.state_num(root, "m.room.power_levels", "")?;
        if self.state.is_none() || self.power_levels != num {
            self.context.power_levels = Some(self.view.levels(self.room, root, num)?.into());
            self.power_levels = num;
        }
        self.state = Some(root);
        Ok(())
    }
}

impl Verdict {
    fn of(actions: &[Action]) -> Self {
        Self {
            notify: actions.iter().any(Action::should_notify),
            highlight: actions.iter().any(Action::is_highlight),
        }
    }
}

/// What becomes of an invite of a user. Of its room nothing else counts.
pub(super) fn of_invite<'a>(
    rules: &'a Ruleset,
    room: OwnedRoomId,
    user: &UserId,
    invite: &StoredEvent,
) -> Result<&'a [Action], ViewError> {
    let (user, name) = (user.to_owned(), name_in(invite)?);
    matching(rules, invite, &PushConditionRoomCtx::new(room, UInt::MIN, user, name))
}

/// The actions of the first rule that an event matches.
fn matching<'a>(
    rules: &'a Ruleset,
    event: &StoredEvent,
    context: &PushConditionRoomCtx,
) -> Result<&'a [Action], ViewError> {
    let raw: Box<RawValue> = serde_json::from_slice(&event.json).map_err(|error| {
        ViewError::Event { event_id: event.meta.event_id.clone(), what: error.to_string() }
    })?;
    let raw = Raw::<AnySyncTimelineEvent>::from_json(raw);
    // No condition that is enabled here has to wait for anything.
    let rule = rules.get_match(&raw, context).now_or_never().flatten();
    Ok(rule.map_or(&[], |rule| rule.actions()))
}

/// What a user is called in a room, by the user's member event; empty without a name.
pub(super) fn name_in(member: &StoredEvent) -> Result<String, ViewError> {
    let profile = Fields::of(member)?.content_as::<Profile>();
    Ok(profile.ok().and_then(|profile| profile.displayname).unwrap_or_default())
}

/// A room as rules look at it, for a user without a name. `entry` has the room as it was then.
pub(super) fn context_at(
    view: &View,
    room: &RoomView,
    user: &UserId,
    entry: &TimelineEntry,
) -> Result<PushConditionRoomCtx, ViewError> {
    let (room_id, user) = (room.room_id.clone(), user.to_owned());
    let members = UInt::new(entry.joined).unwrap_or(UInt::MAX);
    let mut context = PushConditionRoomCtx::new(room_id, members, user, String::new());
    let num = view.state_num(entry.state_after, "m.room.power_levels", "")?;
    context.power_levels = Some(view.levels(room, entry.state_after, num)?.into());
    Ok(context)
}

/// What the first rule says that an event in no thread matches, which is not the user's own.
pub(super) fn verdict(
    rules: &Ruleset,
    event: &FlattenedJson,
    context: &PushConditionRoomCtx,
) -> Verdict {
    // No condition that is enabled here has to wait for anything.
    let mut rules = rules.iter();
    let rule = rules.find(|rule| rule.applies(event, context).now_or_never() == Some(true));
    Verdict::of(rule.map_or(&[], |rule| rule.actions()))
}

/// Whether rules can tell of others who come, go or change their names. The server's rule about them
/// says nothing; few people have one before it that could.
pub(super) fn hear_of_members(rules: &Ruleset) -> bool {
    for rule in rules.iter().filter(|rule| rule.enabled()) {
        match rule.rule_id() {
            ".m.rule.member_event" => return rule.triggers_notification(),
            ".m.rule.invite_for_me" => {}
            _ if rule.triggers_notification() && !is_about_other_types(rule) => return true,
            _ => {}
        }
    }
    false
}

/// Whether a rule is about events of another type than `m.room.member`.
fn is_about_other_types(rule: AnyPushRuleRef<'_>) -> bool {
    use AnyPushRuleRef::{Override, PostContent, Underride};
    let (Override(rule) | PostContent(rule) | Underride(rule)) = rule else { return false };
    rule.conditions.iter().any(|condition| match condition {
        PushCondition::EventMatch(EventMatchConditionData { key, pattern, .. }) => {
            key == "type"
                && !pattern.contains(['*', '?'])
                && !pattern.eq_ignore_ascii_case("m.room.member")
        }
        _ => false,
    })
}

impl View {
    fn levels(
        &self,
        room: &RoomView,
        root: StateRoot,
        num: Option<EventNum>,
    ) -> Result<RoomPowerLevels, ViewError> {
        let event = num.map(|num| self.store.event(num)).transpose()?.flatten();
        let content = match &event {
            Some(event) => {
                Fields::of(event)?.content_as::<Box<RawValue>>().ok().and_then(|content| {
                    serde_json::from_str::<RoomPowerLevelsEventContent>(content.get()).ok()
                })
            }
            None => None,
        };
        let creators = self.creators(root)?;
        let rules = &room.version.rules().authorization;
        Ok(RoomPowerLevels::new(RoomPowerLevelsSource::from(content), rules, creators))
    }

    fn creators(&self, root: StateRoot) -> Result<Vec<OwnedUserId>, ViewError> {
        let Some(create) = self.state_event(root, "m.room.create", "")? else {
            return Ok(Vec::new());
        };
        let fields = Fields::of(&create)?;
        let more = fields
            .content_as::<Creators>()
            .map_or_else(|_| Vec::new(), |content| content.additional_creators);
        let sender = OwnedUserId::try_from(&*fields.sender).ok();
        Ok(sender.into_iter().chain(more).collect())
    }
}

/// Lets conditions ask whether the user has subscribed to a thread. What cannot be read is no
/// subscription: the rest of the answer will tell of it.
fn hear_threads(
    context: PushConditionRoomCtx,
    users: Users,
    user: OwnedUserId,
    room: RoomNum,
) -> PushConditionRoomCtx {
    context.with_has_thread_subscription_fn(move |root| {
        let entry = users.thread_subscription(user.as_str(), room, root.as_str());
        let subscription = entry.ok().flatten().map(|entry| entry.subscription);
        let subscribed = subscription.is_some_and(|now| now != Subscription::Ended);
        Box::pin(ready(subscribed))
    })
}

#[cfg(test)]
mod tests {
    use ruma::push::{NewConditionalPushRule, NewPushRule, RuleKind};

    use super::*;

    #[test]
    fn rules_that_can_tell_of_members_are_recognised() {
        let alice = UserId::parse("@alice:parlour.test").expect("an id");
        let hears = |change: &dyn Fn(&mut Ruleset)| {
            let mut rules = Ruleset::server_default(&alice);
            change(&mut rules);
            hear_of_members(&rules)
        };
        let own = |conditions: serde_json::Value, actions: serde_json::Value| {
            let rule = serde_json::json!({ "rule_id": "own", "default": false, "enabled": true,
                "conditions": conditions, "actions": actions });
            let rule: NewConditionalPushRule = serde_json::from_value(rule).expect("a rule");
            hears(&|rules| {
                let rule = NewPushRule::Override(rule.clone());
                rules.insert(rule, None, None).expect("inserted");
            })
        };
        let of_type = |pattern: &str| {
            let is =
                serde_json::json!({ "kind": "event_match", "key": "type", "pattern": pattern });
            own(serde_json::json!([is]), serde_json::json!(["notify"]))
        };
        let in_room = || serde_json::json!([{ "kind": "event_match", "key": "room_id", "pattern": "!a:a.org" }]);
        assert!(!hears(&|_| ()));
        assert!(own(in_room(), serde_json::json!(["notify"])));
        assert!(!own(in_room(), serde_json::json!([])), "a room is silenced");
        assert!(of_type("m.room.member") && of_type("m.room.*") && of_type("M.Room.Member"));
        assert!(!of_type("m.room.topic"));
        let members = ".m.rule.member_event";
        assert!(hears(&|rules| {
            let notify = vec![Action::Notify];
            rules.set_actions(RuleKind::Override, members, notify).expect("set");
        }));
        assert!(hears(&|rules| {
            rules.set_enabled(RuleKind::Override, members, false).expect("set");
        }));
    }
}
