//! History visibility, row by row.

use parlour_event::{
    content::Membership::{self, Ban, Invite, Join, Knock, Leave},
    json::Object,
    visibility::{
        AtEvent,
        HistoryVisibility::{self, Invited, Joined, Shared, WorldReadable},
        may_see,
    },
};

/// What is seen of an ordinary event: never joined since, and joined since.
type Seen = (bool, bool);

#[test]
fn every_setting_with_every_membership() {
    let (no, yes) = ((false, false), (true, true));
    let if_joined_since = (false, true);
    let rows: [(Option<Membership>, [Seen; 4]); 6] = [
        // world_readable, shared, invited, joined
        (None, [yes, if_joined_since, no, no]),
        (Some(Join), [yes, yes, yes, yes]),
        (Some(Invite), [yes, if_joined_since, yes, no]),
        (Some(Leave), [yes, if_joined_since, no, no]),
        (Some(Ban), [yes, if_joined_since, no, no]),
        (Some(Knock), [yes, if_joined_since, no, no]),
    ];
    for (membership, expected) in rows {
        for (visibility, expected) in
            [WorldReadable, Shared, Invited, Joined].into_iter().zip(expected)
        {
            let sees = |joined_since| {
                may_see(
                    AtEvent::unchanged(visibility),
                    AtEvent::unchanged(membership),
                    joined_since,
                )
            };
            assert_eq!((sees(false), sees(true)), expected, "{visibility:?} {membership:?}");
        }
    }
}

#[test]
fn a_change_of_the_setting_is_seen_under_either_value() {
    let rows = [
        (WorldReadable, Joined, None, true),
        (Joined, WorldReadable, None, true),
        (Joined, Invited, None, false),
        (Joined, Invited, Some(Invite), true),
        (Invited, Joined, Some(Invite), true),
        (Joined, Shared, Some(Leave), false),
        (Invited, Joined, Some(Join), true),
    ];
    for (before, after, membership, expected) in rows {
        let visibility = AtEvent { before, after };
        let sees = may_see(visibility, AtEvent::unchanged(membership), false);
        assert_eq!(sees, expected, "{before:?} to {after:?} for {membership:?}");
    }
    let visibility = AtEvent { before: Joined, after: Shared };
    assert!(may_see(visibility, AtEvent::unchanged(None), true));
}

#[test]
fn the_own_membership_event_is_seen_under_either_membership() {
    let rows = [
        (Joined, None, Some(Join), true),
        (Joined, Some(Join), Some(Leave), true),
        (Joined, Some(Join), Some(Ban), true),
        (Joined, None, Some(Invite), false),
        (Invited, None, Some(Invite), true),
        (Invited, Some(Invite), Some(Leave), true),
        (Invited, Some(Leave), Some(Ban), false),
        (Shared, Some(Invite), Some(Leave), false),
        (WorldReadable, None, Some(Knock), true),
    ];
    for (visibility, before, after, expected) in rows {
        let membership = AtEvent { before, after };
        let sees = may_see(AtEvent::unchanged(visibility), membership, false);
        assert_eq!(sees, expected, "{visibility:?}: {before:?} to {after:?}");
    }
}

#[test]
fn an_unknown_or_missing_setting_means_shared() {
    for (name, expected) in [
        ("world_readable", WorldReadable),
        ("shared", Shared),
        ("invited", Invited),
        ("joined", Joined),
        ("Joined", Shared),
        ("", Shared),
        ("m.custom", Shared),
    ] {
        assert_eq!(HistoryVisibility::from_text(name), expected);
        let content = Object::from([("history_visibility".to_owned(), name.into())]);
        assert_eq!(HistoryVisibility::from_content(Some(&content)), expected);
    }
    let number = Object::from([("history_visibility".to_owned(), 1_i64.into())]);
    assert_eq!(HistoryVisibility::from_content(Some(&number)), Shared);
    assert_eq!(HistoryVisibility::from_content(Some(&Object::new())), Shared);
    assert_eq!(HistoryVisibility::from_content(None), Shared);
}
