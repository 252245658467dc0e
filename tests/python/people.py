"""Users of any homeserver who talk to each other, and what they see of rooms."""

import itertools
import threading
import time

from federation import User, quote

PATIENCE = 60
TRANSACTIONS = itertools.count()


class Person(User):
    """A user with verbs."""

    def room(self, verb, room, body=None):
        method = "GET" if body is None else "POST"
        return self.ask(method, f"/_matrix/client/v3/rooms/{quote(room)}/{verb}", body)

    def create(self, version, **settings):
        body = {"room_version": version, "preset": "public_chat"} | settings
        return self.ask("POST", "/_matrix/client/v3/createRoom", body)["room_id"]

    def enter(self, verb, room_or_alias, via=()):
        servers = "&".join(f"{name}={quote(server)}" for server in via for name in ("via", "server_name"))
        path = f"/_matrix/client/v3/{verb}/{quote(room_or_alias)}?{servers}"
        return self.ask("POST", path, {})["room_id"]

    def join(self, room_or_alias, *via):
        return self.enter("join", room_or_alias, via)

    def knock(self, room_or_alias, *via):
        return self.enter("knock", room_or_alias, via)

    def about(self, verb, room, other):
        return self.room(verb, room, {"user_id": other.id})

    def leave(self, room):
        return self.room("leave", room, {})

    def put(self, room, kind, key, content):
        path = f"/_matrix/client/v3/rooms/{quote(room)}/state/{kind}/{quote(key)}"
        return self.ask("PUT", path, content)["event_id"]

    def get(self, room, kind, key=""):
        return self.ask("GET", f"/_matrix/client/v3/rooms/{quote(room)}/state/{kind}/{quote(key)}")

    def say(self, room, text):
        path = f"/_matrix/client/v3/rooms/{quote(room)}/send/m.room.message/{next(TRANSACTIONS)}"
        return self.ask("PUT", path, {"msgtype": "m.text", "body": text})["event_id"]

    def redact(self, room, event):
        path = f"/_matrix/client/v3/rooms/{quote(room)}/redact/{quote(event)}/{next(TRANSACTIONS)}"
        return self.ask("PUT", path, {})["event_id"]

    def state(self, room):
        """The current state: event ids by type and state key."""
        events = self.room("state", room)
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    def history(self, room):
        """The ids of the room's events that the user gets, newest first."""
        found, start = [], ""
        while True:
            page = self.room(f"messages?dir=b&limit=100{start}", room)
            found += [event["event_id"] for event in page["chunk"]]
            if "end" not in page or not page["chunk"]:
                return found
            start = f"&from={quote(page['end'])}"

    def membership(self, room, of):
        """The membership of somebody, as this user sees it in a room."""
        return next(
            (event["content"]["membership"] for event in self.room("state", room)
             if (event["type"], event["state_key"]) == ("m.room.member", of.id)),
            None,
        )


class Follower:
    """Syncs for a person until it is stopped, and remembers what came."""

    def __init__(self, person):
        self.person, self.events, self.sections = person, {}, {}
        self.changed, self.stopped, self.failure = threading.Condition(), False, None
        self.since = person.ask("GET", "/_matrix/client/v3/sync")["next_batch"]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while not self.stopped:
                path = f"/_matrix/client/v3/sync?timeout=2000&since={quote(self.since)}"
                answer = self.person.ask("GET", path)
                self.since = answer["next_batch"]
                with self.changed:
                    self.note(answer.get("rooms", {}))
                    self.changed.notify_all()
        except AssertionError as error:
            with self.changed:
                self.failure = error
                self.changed.notify_all()

    def note(self, rooms):
        for section in ("join", "invite", "knock", "leave"):
            for room, content in rooms.get(section, {}).items():
                self.sections[room] = section
                events = self.events.setdefault(room, {})
                for part in ("state", "timeline"):
                    for event in content.get(part, {}).get("events", []):
                        events[event["event_id"]] = event

    def until(self, wanted, what):
        """Waits until something has been seen."""
        with self.changed:
            done = self.changed.wait_for(lambda: self.failure or wanted(self), PATIENCE)
        assert not self.failure, self.failure
        assert done, f"{self.person.id} never saw {what}"

    def until_in(self, section, room):
        self.until(lambda seen: seen.sections.get(room) == section, f"{room} in {section}")

    def until_event(self, room, event):
        self.until(lambda seen: event in seen.events.get(room, {}), f"{event} in {room}")

    def until_redacted(self, room, event):
        self.until(
            lambda seen: any(
                event in (found.get("redacts"), found["content"].get("redacts"))
                for found in seen.events.get(room, {}).values()
            ),
            f"{event} redacted",
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stopped = True
        self.thread.join()


def eventually(check, what):
    """Waits until a question to a server has the right answer."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if check():
            return
        time.sleep(0.1)
    raise AssertionError(f"it never happened: {what}")
