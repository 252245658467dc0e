"""A real client library, unchanged: two people open a room and talk."""

import asyncio

import nio
import pytest_asyncio
from nio import AsyncClientConfig, MessageDirection, RoomMessageText, SyncResponse

from validated_client import ValidatedClient

PASSWORD = "correct horse battery staple"
MESSAGES = 50


def client(server, name=""):
    # No retries: what the server refuses must be seen, not papered over.
    config = AsyncClientConfig(max_limit_exceeded=0, max_timeouts=0, encryption_enabled=False)
    return ValidatedClient(server.url, name, config=config)


def ok(answer):
    """The answer, which must not be an error."""
    assert not isinstance(answer, nio.ErrorResponse), answer
    return answer


class Person:
    """A registered user and all that has come to it by /sync."""

    def __init__(self, connection):
        self.nio = connection
        self.events = []

    @classmethod
    async def register(cls, server, name):
        person = cls(client(server, name))
        ok(await person.nio.register(name, PASSWORD, device_name="test"))
        return person

    async def sync(self, **options):
        answer = ok(await self.nio.sync(**{"timeout": 1000, **options}))
        assert isinstance(answer, SyncResponse)
        for info in answer.rooms.join.values():
            self.events += info.timeline.events
        return answer

    async def sync_until(self, wanted):
        """Syncs until `wanted(answer)`, for a minute at most."""
        async with asyncio.timeout(60):
            while not wanted(answer := await self.sync()):
                pass
        return answer

    async def say(self, room, text, **more):
        content = {"msgtype": "m.text", "body": text, **more}
        return ok(await self.nio.room_send(room, "m.room.message", content)).event_id

    def heard(self, sender):
        """What a user said, in the order of arrival."""
        said = (event for event in self.events if isinstance(event, RoomMessageText))
        return [event.body for event in said if event.sender == sender.nio.user_id]


@pytest_asyncio.fixture
async def pair(server):
    """Alice with a private room, and Bob, who was invited and has joined."""
    alice, bob = [await Person.register(server, name) for name in ("alice", "bob")]
    await bob.sync()
    room = ok(await alice.nio.room_create(name="Parlour", topic="Talk", invite=["@bob:localhost"])).room_id
    await bob.sync_until(lambda answer: room in answer.rooms.invite)
    assert bob.nio.invited_rooms[room].inviter == "@alice:localhost"
    ok(await bob.nio.join(room))
    for person in (alice, bob):
        await person.sync_until(lambda _: room in person.nio.rooms and len(person.nio.rooms[room].users) == 2)
    yield alice, bob, room
    await alice.nio.close()
    await bob.nio.close()


async def test_the_room_looks_the_same_to_both(pair):
    alice, bob, room = pair
    for person in (alice, bob):
        seen = person.nio.rooms[room]
        assert (seen.name, seen.topic) == ("Parlour", "Talk")
        assert set(seen.users) == {"@alice:localhost", "@bob:localhost"}
    members = ok(await bob.nio.joined_members(room)).members
    assert {member.user_id for member in members} == {"@alice:localhost", "@bob:localhost"}


async def test_fifty_messages_each_way_while_both_sync(pair):
    alice, bob, room = pair
    texts = [f"message {number}" for number in range(MESSAGES)]

    async def talk(person):
        for text in texts:
            await person.say(room, text)

    async def listen(person):
        await person.sync_until(lambda _: all(len(person.heard(who)) >= MESSAGES for who in (alice, bob)))

    await asyncio.gather(talk(alice), talk(bob), listen(alice), listen(bob))
    for person in (alice, bob):
        assert person.heard(alice) == texts
        assert person.heard(bob) == texts
    assert [e.event_id for e in alice.events][-20:] == [e.event_id for e in bob.events][-20:]


async def test_redaction_and_reply(pair):
    alice, bob, room = pair
    event = await alice.say(room, "a slip")
    ok(await alice.nio.room_redact(room, event, reason="slipped"))
    reply_to = await alice.say(room, "a question")
    reply = await bob.say(room, "an answer", **{"m.relates_to": {"m.in_reply_to": {"event_id": reply_to}}})

    def arrived(_):
        return any(event.event_id == reply for event in bob.events)

    await bob.sync_until(arrived)
    by_id = {event.event_id: event for event in bob.events}
    related = by_id[reply].source["content"]["m.relates_to"]
    assert related == {"m.in_reply_to": {"event_id": reply_to}}
    left = ok(await bob.nio.room_get_event(room, event)).event
    assert isinstance(left, nio.RedactedEvent), left
    assert (left.redacter, left.reason) == ("@alice:localhost", "slipped")


async def test_typing_and_receipts(pair):
    alice, bob, room = pair
    event = await alice.say(room, "read this")
    ok(await bob.nio.room_typing(room, True, timeout=30_000))
    await alice.sync_until(lambda _: alice.nio.rooms[room].typing_users == ["@bob:localhost"])
    ok(await bob.nio.room_typing(room, False))
    await alice.sync_until(lambda _: alice.nio.rooms[room].typing_users == [])
    ok(await bob.nio.room_read_markers(room, fully_read_event=event, read_event=event))

    def read(_):
        receipt = alice.nio.rooms[room].read_receipts.get("@bob:localhost")
        return receipt is not None and receipt.event_id == event

    await alice.sync_until(read)


async def history(person, room, direction, start):
    """All texts from a point to the end of the history."""
    texts = []
    while start:
        page = ok(await person.nio.room_messages(room, start, limit=20, direction=direction))
        texts += [event.body for event in page.chunk if isinstance(event, RoomMessageText)]
        start = page.end if page.chunk else None
    return texts


async def test_history_in_both_directions(pair):
    alice, bob, room = pair
    early = (await bob.sync(timeout=0)).next_batch
    texts = [f"line {number}" for number in range(45)]
    for text in texts:
        await alice.say(room, text)
    late = (await bob.sync(timeout=0)).next_batch
    assert await history(bob, room, MessageDirection.back, late) == texts[::-1]
    assert await history(bob, room, MessageDirection.front, early) == texts


async def test_reconnecting_with_old_tokens_after_a_kill(server, pair):
    alice, bob, room = pair
    since = (await bob.sync(timeout=0)).next_batch
    before = [await alice.say(room, f"before {number}") for number in range(3)]
    server.kill()
    server.start()
    after = [await alice.say(room, f"after {number}") for number in range(3)]
    again = client(server)
    again.restore_login(bob.nio.user_id, bob.nio.device_id, bob.nio.access_token)
    answer = ok(await again.sync(timeout=0, since=since))
    arrived = [event.event_id for event in answer.rooms.join[room].timeline.events]
    await again.close()
    assert arrived == before + after


async def test_logging_in_again_and_out(server, pair):
    alice, _, room = pair
    second = client(server, "@alice:localhost")
    ok(await second.login(PASSWORD))
    assert second.device_id != alice.nio.device_id
    ok(await second.sync(timeout=0))
    assert room in second.rooms
    ok(await second.logout())
    second.access_token = "forged"
    assert isinstance(await second.whoami(), nio.ErrorResponse)
    await second.close()
    ok(await alice.nio.whoami())
