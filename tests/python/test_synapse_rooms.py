"""Rooms that a real Synapse, unchanged, is in: who comes in how, and what becomes of it."""

import itertools
import threading

import pytest

from people import Follower, Person, eventually

VERSIONS = ["6", "9", "10", "11", "12"]
NAMES = itertools.count()


@pytest.fixture(params=["parlour", "synapse"])
def hosts(neighbours, request):
    """The server of the room, and the other one."""
    return neighbours if request.param == "parlour" else neighbours[::-1]


def people(host, count):
    return [Person(host.url, f"user{next(NAMES)}") for _ in range(count)]


def same_everywhere(room, one, other):
    """Both servers have the same state of a room in the end."""
    eventually(lambda: one.state(room) == other.state(room), f"the same state of {room}")


def same_history(room, one, other, since):
    """Both servers have the same events of a room from one on."""
    def after(person):
        events = person.history(room)
        return sorted(events[: events.index(since) + 1]) if since in events else None

    eventually(lambda: after(one) and after(one) == after(other), f"the same history of {room}")


def restricted_by(club):
    allow = [{"type": "m.room_membership", "room_id": club}]
    return {"join_rule": "restricted", "allow": allow}


@pytest.mark.parametrize("version", VERSIONS)
def test_joins_by_alias_by_id_and_by_invite(hosts, version):
    home, away = hosts
    (alice,), (bob, carol, dora) = people(home, 1), people(away, 3)
    name = f"hall{next(NAMES)}"
    room = alice.create(version, room_alias_name=name, name="Hall")
    assert bob.join(f"#{name}:{home.name}") == room
    same_everywhere(room, alice, bob)
    assert bob.get(room, "m.room.name") == {"name": "Hall"}
    carol.join(room, home.name)
    with Follower(dora) as dora_sees:
        closed = alice.create(version, preset="private_chat", name="Closet", invite=[dora.id])
        dora_sees.until_in("invite", closed)
        dora.join(closed)
        dora_sees.until_in("join", closed)
    same_everywhere(closed, alice, dora)


def test_invites_are_rejected(hosts):
    home, away = hosts
    (alice,), (bob,) = people(home, 1), people(away, 1)
    with Follower(bob) as bob_sees:
        for version in ("6", "12"):
            room = alice.create(version, preset="private_chat", invite=[bob.id])
            bob_sees.until_in("invite", room)
            bob.leave(room)
            bob_sees.until_in("leave", room)
            eventually(lambda: alice.membership(room, bob) == "leave", "the invite is rejected")


def test_knocks(hosts):
    home, away = hosts
    (alice,), (bob,) = people(home, 1), people(away, 1)
    knock = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    with Follower(bob) as bob_sees:
        for version in ("9", "12"):
            room = alice.create(version, preset="private_chat", initial_state=knock)
            bob.knock(room, home.name)
            bob_sees.until_in("knock", room)
            eventually(lambda: alice.membership(room, bob) == "knock", "somebody knocks")
            alice.about("invite", room, bob)
            bob_sees.until_in("invite", room)
            bob.join(room)
            bob_sees.until_in("join", room)
            same_everywhere(room, alice, bob)


@pytest.mark.parametrize("version", ["9", "12"])
def test_restricted_rooms(hosts, version):
    home, away = hosts
    (alice,), (bob,) = people(home, 1), people(away, 1)
    club = alice.create(version)
    rules = [{"type": "m.room.join_rules", "content": restricted_by(club)}]
    room = alice.create(version, preset="private_chat", initial_state=rules)
    with pytest.raises(AssertionError, match="403"):
        bob.join(room, home.name)
    bob.join(club, home.name)
    bob.join(room, home.name)
    same_everywhere(room, alice, bob)
    member = alice.get(room, "m.room.member", bob.id)
    assert member["join_authorised_via_users_server"] == alice.id


@pytest.mark.parametrize("version", VERSIONS)
def test_talk_while_both_look(hosts, version):
    home, away = hosts
    (alice,), (bob,) = people(home, 1), people(away, 1)
    room = alice.create(version)
    bob.join(room, home.name)
    count = 100 if version == "12" else 20
    with Follower(alice) as alice_sees, Follower(bob) as bob_sees:
        first = bob.say(room, "hello")
        alice_sees.until_event(room, first)
        said = {alice: [], bob: []}

        def talk(person):
            said[person] = [person.say(room, f"{person.id} {number}") for number in range(count)]

        talks = [threading.Thread(target=talk, args=(person,)) for person in (alice, bob)]
        for thread in talks:
            thread.start()
        for thread in talks:
            thread.join()
        assert len(said[alice]) == len(said[bob]) == count
        for event in said[bob]:
            alice_sees.until_event(room, event)
        for event in said[alice]:
            bob_sees.until_event(room, event)
    same_everywhere(room, alice, bob)
    same_history(room, alice, bob, first)


@pytest.mark.parametrize("version", VERSIONS)
def test_order_is_kept(hosts, version):
    """Power levels, redactions, kicks and bans, by both sides."""
    home, away = hosts
    (alice,), (bob, carol) = people(home, 1), people(away, 2)
    room = alice.create(version)
    bob.join(room, home.name)
    carol.join(room, home.name)
    with Follower(alice) as alice_sees, Follower(bob) as bob_sees:
        first = bob.say(room, "order, order")
        alice_sees.until_event(room, first)
        levels = alice.get(room, "m.room.power_levels")
        levels["users"][bob.id] = 60
        bob_sees.until_event(room, alice.put(room, "m.room.power_levels", "", levels))
        alice_sees.until_event(room, bob.put(room, "m.room.topic", "", {"topic": "order"}))
        mistake = carol.say(room, "mistake")
        alice_sees.until_event(room, mistake)
        alice.redact(room, mistake)
        bob_sees.until_redacted(room, mistake)
        other = carol.say(room, "another")
        alice_sees.until_event(room, other)
        bob.redact(room, other)
        alice_sees.until_redacted(room, other)
        alice.about("kick", room, carol)
        eventually(lambda: bob.membership(room, carol) == "leave", "carol is kicked")
        carol.join(room, home.name)
        eventually(lambda: alice.membership(room, carol) == "join", "carol is back")
        bob.about("ban", room, carol)
        eventually(lambda: alice.membership(room, carol) == "ban", "carol is banned")
        with pytest.raises(AssertionError, match="403"):
            carol.join(room, home.name)
        alice.about("unban", room, carol)
        eventually(lambda: bob.membership(room, carol) == "leave", "carol may come back")
        carol.join(room, home.name)
        eventually(lambda: alice.membership(room, carol) == "join", "carol is back again")
    same_everywhere(room, alice, bob)
    same_history(room, alice, bob, first)


def test_who_has_left_comes_back(hosts):
    home, away = hosts
    (alice,), (bob,) = people(home, 1), people(away, 1)
    for version in ("6", "12"):
        room = alice.create(version)
        bob.join(room, home.name)
        bob.leave(room)
        eventually(lambda: alice.membership(room, bob) == "leave", "bob has left")
        alice.put(room, "m.room.topic", "", {"topic": "meanwhile"})
        bob.join(room, home.name)
        same_everywhere(room, alice, bob)
        with Follower(alice) as alice_sees, Follower(bob) as bob_sees:
            alice_sees.until_event(room, bob.say(room, "back"))
            bob_sees.until_event(room, alice.say(room, "welcome"))


def test_upgrades(hosts):
    home, away = hosts
    (alice,), (bob,) = people(home, 1), people(away, 1)
    old = alice.create("10")
    bob.join(old, home.name)
    with Follower(bob) as bob_sees:
        new = alice.room("upgrade", old, {"new_version": "12"})["replacement_room"]
        bob_sees.until(
            lambda seen: any(
                event["type"] == "m.room.tombstone" for event in seen.events.get(old, {}).values()
            ),
            "the tombstone",
        )
        assert bob.get(old, "m.room.tombstone")["replacement_room"] == new
        bob.join(new, home.name)
        same_everywhere(new, alice, bob)
        assert bob.get(new, "m.room.create")["predecessor"]["room_id"] == old
