"""How long it takes to join a room of thousands on another server: a Parlour and a Synapse, in one run.

The rooms are on a third server, a Parlour that has filled them; both join each of them. Synapse is as it
comes: it answers before it knows who is in the room, and finds out behind that (partial state, MSC3706), so
there are two times, each with the CPU until then, and the CPU until there is nothing left to do. MEMBERS says how many members a room has, ROOMS how many rooms.
`make bench-federation` runs it behind the events of other servers.
"""

import hashlib
import hmac
import os
import pathlib
import statistics
import tempfile
import time

from conftest import Server
from federation import PASSWORD, Authority, Synapse, User, quote

MEMBERS = int(os.environ.get("MEMBERS", "5000"))
ROOMS = int(os.environ.get("ROOMS", "3"))
SECRET = "of the benchmark"
BULK = "/_parlour/test/v1/bulk"

CONFIG = f"""
[log]
level = "warn"
"""
TICKS = os.sysconf("SC_CLK_TCK")


class Administrator(User):
    """Of a Parlour with a shared secret."""

    def __init__(self, url):
        self.url, self.token = url, None
        path = "/_synapse/admin/v1/register"
        nonce = self.ask("GET", path)["nonce"]
        signed = "\0".join([nonce, "root", PASSWORD, "admin"]).encode()
        body = {
            "nonce": nonce,
            "username": "root",
            "password": PASSWORD,
            "admin": True,
            "mac": hmac.new(SECRET.encode(), signed, hashlib.sha1).hexdigest(),
        }
        self.token = self.ask("POST", path, body)["access_token"]

    def rooms(self, count, members):
        """Makes public rooms, and fills them."""
        order = {"prefix": f"of{members}", "users": members, "rooms": count, "members": members}
        job = f"{BULK}/{self.ask('POST', BULK, order)['job_id']}"
        while (state := self.ask("GET", job))["status"] == "active":
            time.sleep(0.1)
        assert state["status"] == "complete" and not state["refused"], state
        return state["room_ids"]


class Joiner:
    """A server that joins."""

    def __init__(self, name, server):
        self.name, self.server, self.results = name, server, []
        server.start()
        self.user = User(server.url, "joiner")

    def cpu(self):
        """Seconds so far."""
        stat = pathlib.Path(f"/proc/{self.server.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rest(self):
        """Waits until nothing is left to be done in the background."""
        used = -1
        while (now := self.cpu()) - used > 0.05:
            used = now
            time.sleep(0.5)

    def join(self, room, via, members):
        """Seconds and CPU until the answer, and until everybody in the room is known; CPU until all is done."""
        started, used = time.monotonic(), self.cpu()
        spent = lambda: (time.monotonic() - started, self.cpu() - used)
        self.user.ask("POST", f"/_matrix/client/v3/join/{quote(room)}?server_name={quote(via)}", {})
        answered = spent()
        known = self.user.ask("GET", f"/_matrix/client/v3/rooms/{quote(room)}/joined_members")
        assert len(known["joined"]) > members, len(known["joined"])
        is_known = spent()
        self.rest()
        return *answered, *is_known, spent()[1]


def parlour(directory, authority, more=""):
    directory.mkdir()
    server = Server(directory, authority)
    config = directory / "parlour.toml"
    config.write_text(config.read_text().replace("[registration]", f"[registration]\n{more}") + CONFIG)
    return server


def measure(directory):
    """The joiners with what they needed for each room."""
    authority = Authority(directory)
    home = parlour(directory / "home", authority, f'shared_secret = "{SECRET}"')
    near, synapse = parlour(directory / "near", authority), Synapse(directory / "synapse", authority)
    synapse.configure("WARNING")
    try:
        home.start()
        joiners = [Joiner("Parlour", near), Joiner("Synapse", synapse)]
        root = Administrator(home.url)
        small, rooms = root.rooms(1, 10), root.rooms(ROOMS, MEMBERS)
        # Who has joined once has keys and connections.
        for joiner in joiners:
            joiner.join(small[0], home.name, 10)
        for number, room in enumerate(rooms):
            for joiner in joiners[:: -1 if number % 2 else 1]:
                joiner.results.append(joiner.join(room, home.name, MEMBERS))
        return joiners
    finally:
        home.kill()
        near.kill()
        synapse.stop()


def table(joiners):
    head = f"joining {MEMBERS:,} members", "answer", "CPU", "all are known", "CPU", "all is done: CPU"
    rows = [head]
    for joiner in joiners:
        medians = map(statistics.median, zip(*joiner.results, strict=True))
        rows.append((joiner.name, *(f"{seconds:,.2f} s" for seconds in medians)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join("  ".join(map(str.rjust, row, widths)).rstrip() for row in rows) + "\n"


def run(binary):
    """What it has found out, as a table; `binary` is the Parlour."""
    os.environ["TEST_BINARY"] = str(binary)
    with tempfile.TemporaryDirectory() as directory:
        return table(measure(pathlib.Path(directory)))
