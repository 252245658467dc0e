"""A real Synapse, unchanged, on the other side."""

import json
import urllib.request

from federation import User, quote


def fetch(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=data, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_keys_profiles_and_aliases(federation):
    server, synapse = federation
    alice, bob = User(server.url, "alice"), User(synapse.url, "bob")
    alice.set_name("Alice")
    bob.set_name("Bob")
    # Each checks the other's signature with keys that it fetches.
    assert bob.profile(alice.id)["displayname"] == "Alice"
    assert alice.profile(bob.id)["displayname"] == "Bob"

    rooms = {}
    for owner, other, host in ((alice, bob, server), (bob, alice, synapse)):
        room = owner.ask("POST", "/_matrix/client/v3/createRoom", {"room_alias_name": "hall"})
        alias = f"#hall:{host.name}"
        found = other.ask("GET", f"/_matrix/client/v3/directory/room/{quote(alias)}")
        assert (found["room_id"], found["servers"]) == (room["room_id"], [host.name])
        rooms[host.name] = room["room_id"]
    assert len(rooms) == 2


def test_a_token_of_either_proves_who_somebody_is(federation):
    server, synapse = federation
    for host, name in ((server, "alice"), (synapse, "bob")):
        user = User(host.url, name)
        token = user.ask("POST", f"/_matrix/client/v3/user/{quote(user.id)}/openid/request_token", {})
        assert token["matrix_server_name"] == host.name
        path = f"/_matrix/federation/v1/openid/userinfo?access_token={quote(token['access_token'])}"
        assert user.ask("GET", path) == {"sub": user.id}


def test_each_vouches_for_the_others_keys(federation):
    server, synapse = federation
    for notary, other in ((server, synapse), (synapse, server)):
        own = fetch(f"{other.url}/_matrix/key/v2/server")
        # Synapse insists on the field that may be left out.
        until = {"minimum_valid_until_ts": 0}
        wanted = {other.name: dict.fromkeys(own["verify_keys"], until)}
        answer = fetch(f"{notary.url}/_matrix/key/v2/query", {"server_keys": wanted})
        documents = answer["server_keys"]
        assert [document["server_name"] for document in documents] == [other.name]
        assert set(documents[0]["signatures"]) == {notary.name, other.name}
