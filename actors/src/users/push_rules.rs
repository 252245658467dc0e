//! Push rules: a user's own and the server's defaults, kept together as a piece of account data.
//!
//! Specification: <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

use bytes::Bytes;
use parlour_event::RoomNum;
use parlour_storage::{Direction, StorageError, Store, schema::keys};
use ruma::{
    UserId,
    events::push_rules::PushRulesEventContent,
    push::{
        AnyPushRuleRef, InsertPushRuleError, NewPushRule, PushCondition, RemovePushRuleError,
        RuleNotFoundError, Ruleset,
    },
};

use super::{AccountDataError, Decision, UserError, Users, account_data::PieceWrite};

/// The account data type of push rules.
pub const PUSH_RULES: &str = "m.push_rules";

/// How many rules a user may have, the server's included.
const MAX_RULES: usize = 1_000;

/// How long all of a user's rules may be, as JSON.
const MAX_BYTES: usize = 256 << 10;

/// How many patterns a user may have looked for in the text of messages. Each is searched for
/// anew in each event, which is what costs most.
const MAX_TEXT_PATTERNS: usize = 100;

/// The longest pattern and the longest id of a rule, in bytes.
const MAX_TEXT: usize = 255;

/// Why push rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum PushRulesError {
    /// There is no such rule.
    #[error("the push rule was not found")]
    NotFound,
    /// The rule named as a neighbour does not exist, or is the server's.
    #[error("before/after rule not found, or it is one of the server's")]
    UnknownNeighbour,
    /// The rule cannot be like this.
    #[error("{0}")]
    Invalid(&'static str),
    /// There would be too many rules.
    #[error("there are too many push rules, or they are too long")]
    TooMany,
    /// See there.
    #[error(transparent)]
    Data(#[from] AccountDataError),
    /// See there.
    #[error(transparent)]
    User(#[from] UserError),
}

impl From<RuleNotFoundError> for PushRulesError {
    fn from(_: RuleNotFoundError) -> Self {
        Self::NotFound
    }
}

impl From<RemovePushRuleError> for PushRulesError {
    fn from(error: RemovePushRuleError) -> Self {
        match error {
            RemovePushRuleError::NotFound => Self::NotFound,
            _ => Self::Invalid("the server's own rules can be disabled, but not deleted"),
        }
    }
}

impl From<InsertPushRuleError> for PushRulesError {
    fn from(error: InsertPushRuleError) -> Self {
        match error {
            InsertPushRuleError::UnknownRuleId
            | InsertPushRuleError::RelativeToServerDefaultRule => Self::UnknownNeighbour,
            InsertPushRuleError::ServerDefaultRuleId => {
                Self::Invalid("ids of rules with a leading dot are the server's")
            }
            InsertPushRuleError::BeforeHigherThanAfter => {
                Self::Invalid("`before` has a higher priority than `after`")
            }
            _ => Self::Invalid("the id of a rule has no slashes"),
        }
    }
}

/// Where among the rules of its kind a rule is put.
#[derive(Debug, Clone, Default)]
pub struct RulePlace {
    /// Behind this rule.
    pub after: Option<String>,
    /// Right before this rule.
    pub before: Option<String>,
}

impl Users {
    /// The rules that hold for a user.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn push_rules(&self, user: &UserId) -> Result<Ruleset, StorageError> {
        read(&self.store, user)
    }

    /// Whether other rules may hold for a user than those that the server brings.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn has_own_push_rules(&self, user: &str) -> Result<bool, StorageError> {
        let key = keys::account_data(user, RoomNum(0), PUSH_RULES);
        Ok(self.store.get(&key)?.is_some() || follows_threads(&self.store, user)?)
    }

    /// The content of a user's `m.push_rules`, as JSON text.
    ///
    /// # Errors
    ///
    /// If storage cannot be read.
    pub fn push_rules_content(&self, user: &UserId) -> Result<Bytes, StorageError> {
        Ok(content(read(&self.store, user)?))
    }

    /// Adds a rule, or changes the one with its id.
    ///
    /// # Errors
    ///
    /// [`PushRulesError`]
    pub async fn put_push_rule(
        &self,
        user: &UserId,
        rule: NewPushRule,
        place: RulePlace,
    ) -> Result<(), PushRulesError> {
        check_texts(&rule)?;
        self.change_push_rules(user, move |rules| insert(rules, rule, &place)).await
    }

    /// Changes a user's rules by a function of what they are now.
    ///
    /// # Errors
    ///
    /// [`PushRulesError`]
    pub async fn change_push_rules(
        &self,
        user: &UserId,
        change: impl FnOnce(&mut Ruleset) -> Result<(), PushRulesError> + Send + 'static,
    ) -> Result<(), PushRulesError> {
        let owner = user.to_owned();
        let decide = move |store: &Store| {
            let old = read(store, &owner).map_err(UserError::from)?;
            let mut new = old.clone();
            change(&mut new)?;
            check_bounds(&new)?;
            let (old, new) = (content(old), content(new));
            if old == new {
                return Ok(Decision::Keep(()));
            }
            if new.len() > MAX_BYTES {
                return Err(PushRulesError::TooMany);
            }
            let write = PieceWrite::plan(store, owner.as_str(), RoomNum(0), PUSH_RULES, new)?;
            Ok(Decision::Write(write.into_change(), ()))
        };
        self.change(user.as_str(), decide).await
    }
}

/// The write that shows a user's clients the rules about threads: see [`with_defaults`].
pub(super) fn begin_threads(store: &Store, user: &UserId) -> Result<PieceWrite, AccountDataError> {
    let stored = stored(store, user.as_str()).map_err(UserError::from)?;
    let rules = content(with_defaults(stored, user, true));
    PieceWrite::plan(store, user.as_str(), RoomNum(0), PUSH_RULES, rules)
}

fn read(store: &Store, user: &UserId) -> Result<Ruleset, StorageError> {
    let threads = follows_threads(store, user.as_str())?;
    Ok(with_defaults(stored(store, user.as_str())?, user, threads))
}

/// Whether a user has ever subscribed to a thread.
fn follows_threads(store: &Store, user: &str) -> Result<bool, StorageError> {
    let threads = keys::thread_subscriptions_of(user);
    Ok(!store.scan_prefix(&threads, Direction::Forward, 1)?.is_empty())
}

fn stored(store: &Store, user: &str) -> Result<Ruleset, StorageError> {
    let key = keys::account_data(user, RoomNum(0), PUSH_RULES);
    let Some(place) = store.get(&key)?.and_then(|entry| entry.blob) else {
        return Ok(Ruleset::default());
    };
    Ok(match serde_json::from_slice(&store.blob(&place)?) {
        Ok(PushRulesEventContent { global, .. }) => global,
        Err(error) => {
            tracing::error!(%error, "stored push rules are not readable; the defaults hold");
            Ruleset::default()
        }
    })
}

/// A user's rules with the server's as they are in this version; what the user has switched there
/// stays. The rules about threads (MSC4306) silence threads that one hasn't subscribed to, so they
/// are there only for those whose clients know how to subscribe, and have done so once.
fn with_defaults(mut rules: Ruleset, user: &UserId, threads: bool) -> Ruleset {
    let mut defaults = Ruleset::server_default(user);
    let mut about_threads = std::mem::take(&mut defaults.postcontent);
    if !threads {
        about_threads.clear();
    }
    let switched = std::mem::take(&mut rules.postcontent);
    let about_threads = about_threads.into_iter().map(|mut rule| {
        if let Some(known) = switched.get(rule.rule_id.as_str()) {
            rule.enabled = known.enabled;
            rule.actions.clone_from(&known.actions);
        }
        rule
    });
    rules.postcontent = about_threads.collect();
    rules.update_with_server_default(defaults);
    rules
}

fn content(rules: Ruleset) -> Bytes {
    let json = serde_json::to_vec(&PushRulesEventContent::new(rules));
    json.expect("push rules are plain data with string keys").into()
}

/// Puts a rule in its place. ruma moves a rule that is there already one place too far, so that
/// one is taken out first.
fn insert(rules: &mut Ruleset, rule: NewPushRule, place: &RulePlace) -> Result<(), PushRulesError> {
    let (kind, id) = (rule.kind(), rule.rule_id().to_owned());
    let (after, before) = (place.after.as_deref(), place.before.as_deref());
    // A new rule beside itself: ruma would move it past the end, and panic.
    if [after, before].contains(&Some(&*id)) {
        return Err(PushRulesError::UnknownNeighbour);
    }
    let known = rules.get(kind.clone(), &id).map(AnyPushRuleRef::enabled);
    if known.is_some() && (after.is_some() || before.is_some()) {
        rules.remove(kind.clone(), &id)?;
    }
    rules.insert(rule, after, before)?;
    if let Some(enabled) = known {
        rules.set_enabled(kind, &id, enabled)?;
    }
    Ok(())
}

fn check_texts(rule: &NewPushRule) -> Result<(), PushRulesError> {
    let fits = |text: &str| text.len() <= MAX_TEXT;
    let (id, patterns) = match rule {
        NewPushRule::Override(rule) | NewPushRule::Underride(rule) => {
            let patterns = rule.conditions.iter().filter_map(|condition| match condition {
                PushCondition::EventMatch(condition) => Some(condition.pattern.as_str()),
                _ => None,
            });
            (rule.rule_id.as_str(), patterns.collect())
        }
        NewPushRule::Content(rule) => (rule.rule_id.as_str(), vec![rule.pattern.as_str()]),
        other => (other.rule_id(), Vec::new()),
    };
    if id.is_empty() || !fits(id) || !patterns.into_iter().all(fits) {
        return Err(PushRulesError::Invalid("ids and patterns have at most 255 bytes"));
    }
    Ok(())
}

fn check_bounds(rules: &Ruleset) -> Result<(), PushRulesError> {
    let conditional = rules.override_.iter().chain(&rules.underride);
    let conditions = conditional.flat_map(|rule| &rule.conditions);
    let in_text = conditions.filter(|condition| match condition {
        PushCondition::EventMatch(condition) => condition.key == "content.body",
        _ => false,
    });
    if rules.iter().count() > MAX_RULES
        || in_text.count().saturating_add(rules.content.len()) > MAX_TEXT_PATTERNS
    {
        return Err(PushRulesError::TooMany);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ruma::{
        push::{NewConditionalPushRule, PredefinedOverrideRuleId, RuleKind},
        user_id,
    };

    use super::*;

    fn rule(id: &str) -> NewPushRule {
        NewPushRule::Override(NewConditionalPushRule::new(id.to_owned(), vec![], vec![]))
    }

    fn own(rules: &Ruleset) -> Vec<&str> {
        let own = rules.override_.iter().filter(|rule| !rule.default);
        own.map(|rule| rule.rule_id.as_str()).collect()
    }

    #[test]
    fn rules_come_where_they_are_put() {
        let mut rules = with_defaults(Ruleset::default(), user_id!("@a:x"), false);
        let mut put = |id: &str, after: Option<&str>, before: Option<&str>| {
            let [after, before] = [after, before].map(|id| id.map(str::to_owned));
            insert(&mut rules, rule(id), &RulePlace { after, before }).expect("a good place");
            assert_eq!(rules.override_[0].rule_id, PredefinedOverrideRuleId::Master.as_str());
            own(&rules).concat()
        };
        assert_eq!(put("a", None, None), "a");
        assert_eq!(put("b", None, None), "ba", "a new rule is the first");
        assert_eq!(put("c", Some("a"), None), "bac");
        assert_eq!(put("b", None, None), "bac", "a rule that is there stays");
        assert_eq!(put("b", Some("a"), None), "abc");
        assert_eq!(put("a", None, Some("c")), "bac");
        assert_eq!(put("c", None, Some("b")), "cba");
        assert_eq!(put("c", Some("a"), None), "bac", "behind the last one, too");
        assert_eq!(put("d", Some("b"), Some("c")), "badc");
    }

    #[test]
    fn no_place_is_found_beside_what_is_not_there() {
        let mut rules = with_defaults(Ruleset::default(), user_id!("@a:x"), false);
        for id in ["nobody", "a", ".m.rule.message"] {
            let after = RulePlace { after: Some(id.to_owned()), before: None };
            let before = RulePlace { after: None, before: Some(id.to_owned()) };
            for place in [after, before] {
                let mut rules = rules.clone();
                let refused = insert(&mut rules, rule("a"), &place);
                assert!(matches!(refused, Err(PushRulesError::UnknownNeighbour)), "{refused:?}");
            }
        }
        for id in [".a", "a/b", "a\\b"] {
            let refused = insert(&mut rules, rule(id), &RulePlace::default());
            assert!(matches!(refused, Err(PushRulesError::Invalid(_))), "{id}: {refused:?}");
        }
    }

    #[test]
    fn rules_about_threads_keep_what_was_switched() {
        let user = user_id!("@a:x");
        assert!(with_defaults(Ruleset::default(), user, false).postcontent.is_empty());
        let mut rules = with_defaults(Ruleset::default(), user, true);
        let id = rules.postcontent[0].rule_id.clone();
        rules.set_enabled(RuleKind::PostContent, &id, false).expect("the rule is there");
        let again = with_defaults(rules, user, true);
        assert_eq!(again.postcontent.len(), 2);
        assert!(!again.postcontent[0].enabled && again.postcontent[1].enabled);
    }
}
