"""Reading each other's rooms: history, lists of rooms and spaces, with a real Synapse."""

import time

from federation import User, quote

OLD = 200


def create(user, **body):
    return user.ask("POST", "/_matrix/client/v3/createRoom", body)["room_id"]


def join(user, room, host):
    user.ask("POST", f"/_matrix/client/v3/join/{quote(room)}?server_name={host.name}&via={host.name}", {})


def say(user, room, text):
    path = f"/_matrix/client/v3/rooms/{quote(room)}/send/m.room.message/{quote(text)}"
    return user.ask("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]


def page_back(user, room):
    """All messages from the room's end to its beginning, newest first."""
    bodies, start = [], ""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        path = f"/_matrix/client/v3/rooms/{quote(room)}/messages?dir=b&limit=50{start}"
        page = user.ask("GET", path)
        bodies += [event["content"]["body"] for event in page["chunk"] if "body" in event["content"]]
        if any(event["type"] == "m.room.create" for event in page["chunk"]):
            return bodies
        # Synapse gives an empty page without an end if it has fetched the same in the background.
        if "end" in page:
            start = f"&from={quote(page['end'])}"
    raise AssertionError(f"this does not end: {len(bodies)} messages")


def test_history_from_before_ones_time(federation):
    server, synapse = federation
    alice, bob = User(server.url, "alice"), User(synapse.url, "bob")
    for version in ("10", "12"):
        for owner, guest, host in ((alice, bob, server), (bob, alice, synapse)):
            room = create(owner, preset="public_chat", room_version=version)
            said = [say(owner, room, f"old {number}") for number in range(OLD)]
            join(guest, room, host)
            assert page_back(guest, room) == [f"old {number}" for number in reversed(range(OLD))]
            event = guest.ask("GET", f"/_matrix/client/v3/rooms/{quote(room)}/event/{quote(said[7])}")
            assert event["content"]["body"] == "old 7"
            at = f"/_matrix/client/v1/rooms/{quote(room)}/timestamp_to_event"
            found = guest.ask("GET", f"{at}?dir=f&ts={event['origin_server_ts']}")
            assert found["origin_server_ts"] == event["origin_server_ts"]


def test_lists_of_rooms(federation):
    server, synapse = federation
    alice, bob = User(server.url, "alice"), User(synapse.url, "bob")
    for owner, other, host in ((alice, bob, server), (bob, alice, synapse)):
        rooms = {
            name: create(owner, name=name, preset="public_chat", visibility="public")
            for name in ("One", "Two", "Three")
        }
        path = f"/_matrix/client/v3/publicRooms?server={host.name}"
        listed = other.ask("GET", path)
        assert {room["name"]: room["room_id"] for room in listed["chunk"]} == rooms
        first = other.ask("GET", f"{path}&limit=2")
        rest = other.ask("GET", f"{path}&limit=2&since={quote(first['next_batch'])}")
        names = [room["name"] for room in first["chunk"] + rest["chunk"]]
        assert sorted(names) == sorted(rooms)
        found = other.ask("POST", path, {"filter": {"generic_search_term": "thr"}})
        assert [room["name"] for room in found["chunk"]] == ["Three"]


def test_a_space_over_both(federation):
    server, synapse = federation
    alice, bob = User(server.url, "alice"), User(synapse.url, "bob")
    space = {"creation_content": {"type": "m.space"}, "preset": "public_chat"}
    for owner, other, far in ((alice, bob, synapse), (bob, alice, server)):
        top = create(owner, name="Top", **space)
        sub = create(other, name="Sub", **space)
        leaf = create(other, name="Leaf", preset="public_chat")
        closed = create(other, name="Closed", preset="private_chat")
        for user, parent, child in ((owner, top, sub), (other, sub, leaf), (other, sub, closed)):
            path = f"/_matrix/client/v3/rooms/{quote(parent)}/state/m.space.child/{quote(child)}"
            user.ask("PUT", path, {"via": [far.name]})
        rooms = owner.ask("GET", f"/_matrix/client/v1/rooms/{quote(top)}/hierarchy")["rooms"]
        assert [room["name"] for room in rooms] == ["Top", "Sub", "Leaf"]
        path = f"/_matrix/client/v1/room_summary/{quote(leaf)}?via={far.name}"
        if owner is alice:
            assert owner.ask("GET", path)["name"] == "Leaf"
