"""Devices and their messages between Parlour and a real Synapse: with servers that are killed."""

import time

import pytest
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json
from unpaddedbase64 import encode_base64

from federation import PASSWORD, quote
from people import PATIENCE, TRANSACTIONS, Person, eventually


class Device(Person):
    """A user's client, as far as encryption is concerned."""

    def __init__(self, url, name):
        super().__init__(url, name)
        self.see_who_it_is()
        self.since = self.sync()["next_batch"]

    def see_who_it_is(self):
        self.device = self.ask("GET", "/_matrix/client/v3/account/whoami")["device_id"]

    def second(self):
        """Another client of the same user."""
        other = Device.__new__(Device)
        other.url, other.id, other.token = self.url, self.id, None
        identifier = {"type": "m.id.user", "user": self.id}
        body = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
        other.token = other.ask("POST", "/_matrix/client/v3/login", body)["access_token"]
        other.see_who_it_is()
        return other

    def sync(self, since=None):
        query = f"?timeout=1000&since={quote(since)}" if since else ""
        return self.ask("GET", f"/_matrix/client/v3/sync{query}")

    def publish(self):
        key = encode_base64(get_verify_key(generate_signing_key(self.device)).encode())
        keys = {
            "user_id": self.id,
            "device_id": self.device,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"curve25519:{self.device}": key, f"ed25519:{self.device}": key},
            "signatures": {self.id: {f"ed25519:{self.device}": "signature"}},
        }
        self.ask("POST", "/_matrix/client/v3/keys/upload", {"device_keys": keys})

    def rename(self, name):
        self.ask("PUT", f"/_matrix/client/v3/devices/{quote(self.device)}", {"display_name": name})

    def cross_sign(self):
        """Publishes cross-signing keys; returns the public part of the first."""
        keys, signer = {}, None
        for usage in ("master", "self_signing", "user_signing"):
            pair = generate_signing_key("x")
            public = encode_base64(get_verify_key(pair).encode())
            pair.version = public
            key = {"user_id": self.id, "usage": [usage], "keys": {f"ed25519:{public}": public}}
            signer = signer or pair
            keys[f"{usage}_key"] = key if signer is pair else sign_json(key, self.id, signer)
        self.ask("POST", "/_matrix/client/v3/keys/device_signing/upload", keys)
        return keys["master_key"]["keys"]

    def keys_of(self, other):
        answer = self.ask("POST", "/_matrix/client/v3/keys/query", {"device_keys": {other.id: []}})
        master = answer.get("master_keys", {}).get(other.id, {}).get("keys")
        return answer["device_keys"].get(other.id, {}), master

    def names_of(self, other):
        """The other's devices, and what they are called."""
        devices, _ = self.keys_of(other)
        return {
            device: keys.get("unsigned", {}).get("device_display_name")
            for device, keys in devices.items()
        }

    def hears_of(self, other):
        """Waits until it is told that the other's keys have changed."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self.sync(self.since)
            self.since = answer["next_batch"]
            if other.id in answer.get("device_lists", {}).get("changed", []):
                return
        raise AssertionError(f"{self.id} never hears of {other.id}")

    def tell(self, other, number, device=None):
        path = f"/_matrix/client/v3/sendToDevice/m.test/{next(TRANSACTIONS)}"
        messages = {other.id: {device or other.device: {"number": number}}}
        self.ask("PUT", path, {"messages": messages})

    def told(self, count):
        """The numbers that it is told, as soon as there are so many."""
        numbers, deadline = [], time.monotonic() + PATIENCE
        while len(numbers) < count and time.monotonic() < deadline:
            answer = self.sync(self.since)
            self.since = answer["next_batch"]
            events = answer.get("to_device", {}).get("events", [])
            numbers += [event["content"]["number"] for event in events if event["type"] == "m.test"]
        return numbers


@pytest.fixture
def pair(federation):
    """Two who share a room: one here, one there."""
    server, synapse = federation
    alice, bob = Device(server.url, "alice"), Device(synapse.url, "bob")
    room = alice.create("11")
    bob.join(room, server.name)
    eventually(lambda: alice.membership(room, bob) == "join", "both are in")
    return alice, bob, room


# Checklist 5.14, 5.15
def test_changes_of_devices_are_heard_of(pair):
    for one, other in (pair[:2], pair[1::-1]):
        one.publish()
        one.rename("first")
        eventually(lambda: other.names_of(one) == {one.device: "first"}, "the first device")
        other.since = other.sync(other.since)["next_batch"]
        one.rename("phone")
        other.hears_of(one)
        eventually(lambda: other.names_of(one) == {one.device: "phone"}, "the new name")
        second = one.second()
        second.publish()
        other.hears_of(one)
        eventually(lambda: set(other.names_of(one)) == {one.device, second.device}, "two devices")
        second.ask("POST", "/_matrix/client/v3/logout", {})
        other.hears_of(one)
        eventually(lambda: set(other.names_of(one)) == {one.device}, "one device again")
        master = one.cross_sign()
        other.hears_of(one)
        eventually(lambda: other.keys_of(one)[1] == master, "the master key")


# Checklist 5.14
def test_synapse_follows_the_chain(federation, pair):
    """It asks for the whole list where something is missing, and only there."""
    (server, synapse), (alice, bob, _) = federation, pair

    def asked():
        return server.log.read_text().count("/_matrix/federation/v1/user/devices/")

    alice.publish()
    alice.rename("known")
    eventually(lambda: bob.names_of(alice) == {alice.device: "known"}, "the first list")
    bob.since = bob.sync(bob.since)["next_batch"]
    before = asked()
    for name in ("one", "two", "three"):
        alice.rename(name)
        bob.hears_of(alice)
        eventually(lambda: bob.names_of(alice) == {alice.device: name}, name)
    assert asked() == before
    synapse.stop()
    for number in range(30):
        alice.rename(f"away {number}")
    synapse.start()
    alice.rename("back")
    eventually(lambda: bob.names_of(alice) == {alice.device: "back"}, "what was missed")
    assert before < asked() <= before + 2


# Checklist 5.4, 12.6
def test_messages_survive_outages_of_either_side(federation, pair):
    (server, synapse), (alice, bob, room) = federation, pair
    for number in range(30):
        if number == 10:
            synapse.stop()
        alice.tell(bob, number, "*" if number % 2 else None)
    # Killed, too, with all of them waiting.
    server.kill()
    server.start()
    synapse.start()
    bob.say(room, "I am back")
    assert bob.told(30) == list(range(30))
    for number in range(30):
        if number == 10:
            server.kill()
        bob.tell(alice, number, "*" if number % 2 else None)
    server.start()
    # Synapse leaves who was away alone until it hears of them.
    alice.say(room, "I am back")
    assert alice.told(30) == list(range(30))
    alice.tell(bob, 30)
    bob.tell(alice, 30)
    assert (bob.told(1), alice.told(1)) == ([30], [30])
