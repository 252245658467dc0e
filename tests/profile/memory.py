"""What the server takes of memory: idle, for each room that nobody uses, and for each client that waits.

`make memory` runs it. Settings come from the environment: MEMORY_BINARY (the parlour binary),
MEMORY_ROOMS (how many rooms, default 20000), MEMORY_SYNCS (how many clients, default 2000), and
MEMORY_BUDGET (`memory.budget`; the least there is, 16 MiB, so that caches do not stand for rooms).

Pages of the program itself are shared and can be dropped; what counts for rooms and clients is what is
the process's own.
"""

import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

SECRET = "for the length of a measurement"

CONFIG = """
[server]
name = "localhost"
data_dir = "{data}"

[[listeners]]
address = "127.0.0.1"
port = {port}
apis = ["client", "admin", "metrics"]

[registration]
shared_secret = "{secret}"

[memory]
budget = {budget}

[log]
level = "warn"
"""


class Server:
    """A server in test mode, and a connection to it."""

    def __init__(self, binary, home, budget):
        home.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        config = home / "parlour.toml"
        values = {"data": home / "data", "port": self.port, "secret": SECRET}
        config.write_text(CONFIG.format(**values, budget=budget))
        self.command = [binary, "serve", "--test-mode", "--config", config]
        self.token = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command)
        while self.process.poll() is None:
            try:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.port)
                return self.connection.connect()
            except ConnectionRefusedError:
                time.sleep(0.05)
        sys.exit("the server ended; it has said why")

    def restart(self):
        self.stop()
        self.start()

    def stop(self):
        self.connection.close()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def ask(self, method, path, body=None, token=None):
        token = token or self.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        text = None if body is None else json.dumps(body)
        self.connection.request(method, path, text, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            sys.exit(f"{method} {path}: {answer.status} {content}")
        return content

    def json(self, *request):
        return json.loads(self.ask(*request))

    def become_admin(self):
        path = "/_synapse/admin/v1/register"
        nonce = self.json("GET", path)["nonce"]
        mac = hmac.new(SECRET.encode(), f"{nonce}\0root\0password\0admin".encode(), hashlib.sha1)
        user = {"username": "root", "password": "password", "admin": True}
        answer = self.json("POST", path, user | {"nonce": nonce, "mac": mac.hexdigest()})
        self.token = answer["access_token"]

    def fill(self, order):
        """Makes users and rooms in bulk."""
        path = "/_parlour/test/v1/bulk"
        path += "/" + self.json("POST", path, order)["job_id"]
        while (job := self.json("GET", path))["status"] == "active":
            time.sleep(0.5)
        if job["status"] != "complete" or job["refused"]:
            sys.exit(f"not all was made: {job}")

    def metric(self, name):
        text = self.ask("GET", "/metrics").decode()
        return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)[1])

    def memory(self):
        """All that is resident, and what of it is the process's own, in KiB; once it stays as it is."""
        last = None
        while True:
            text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            now = tuple(int(re.search(rf"{name}:\s+(\d+)", text)[1]) for name in ("VmRSS", "RssAnon"))
            if last and abs(now[1] - last[1]) < 64:
                return now
            last = now
            time.sleep(3)


def measure_rooms(server, rooms):
    """What is taken after a restart without rooms, and after two with them."""
    server.become_admin()
    server.fill({"users": 100})
    server.restart()
    before = server.memory()
    server.fill({"users": 100, "rooms": rooms, "members": 2, "messages": 5})
    # The first start after many changes has more to read, and does not give all of that memory back.
    server.restart()
    first = server.memory()
    server.restart()
    return before, first, server.memory()


def measure_syncs(server, clients):
    """What is taken before clients wait, and then."""
    server.become_admin()
    server.fill({"users": clients, "prefix": "bulk"})
    logins = []
    for first in range(0, clients, 1000):
        users = [f"@bulk-{n}:localhost" for n in range(first, min(first + 1000, clients))]
        logins += server.json("POST", "/_parlour/test/v1/logins", {"users": users})["logins"]
    path = "/_matrix/client/v3/sync"
    since = [server.json("GET", path, None, one["access_token"])["next_batch"] for one in logins]
    before = server.memory()
    waiting = []
    for login, token in zip(logins, since):
        head = f"GET {path}?timeout=60000&since={token} HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Authorization: Bearer {login['access_token']}\r\n\r\n"
        waiting.append(socket.create_connection(("127.0.0.1", server.port)))
        waiting[-1].sendall(head.encode())
    while server.metric("parlour_parked_syncs") < clients:
        time.sleep(0.2)
    # After a second without news a client's connection lets go of its buffers, and whoever allocates
    # next gives them back to the system.
    time.sleep(2)
    for _ in range(20):
        others = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(16)]
        for other in others:
            other.sendall(b"GET /_matrix/client/versions HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for other in others:
            other.recv(65536)
            other.close()
        time.sleep(0.1)
    return before, server.memory()


def main():
    binary = os.environ.get("MEMORY_BINARY", str(ROOT / "target" / "release" / "parlour"))
    rooms = int(os.environ.get("MEMORY_ROOMS", "20000"))
    clients = int(os.environ.get("MEMORY_SYNCS", "2000"))
    budget = int(os.environ.get("MEMORY_BUDGET", 16 << 20))
    with tempfile.TemporaryDirectory(dir=os.environ.get("MEMORY_DIR")) as home:
        server = Server(binary, pathlib.Path(home) / "rooms", budget)
        resident, own = server.memory()
        print(f"idle: {resident / 1024:.1f} MiB resident, {own / 1024:.1f} MiB of them its own")
        if rooms:
            before, first, second = measure_rooms(server, rooms)
            print(f"a room that sleeps: {(second[1] - before[1]) / rooms:.2f} KiB")
            print(f"... at the first start after it was made: {(first[1] - before[1]) / rooms:.2f} KiB")
        server.stop()
        if clients:
            # Each client is counted: there must be room for all of them.
            server = Server(binary, pathlib.Path(home) / "syncs", 1 << 30)
            before, waiting = measure_syncs(server, clients)
            print(f"a client that waits: {(waiting[1] - before[1]) / clients:.2f} KiB")
            server.stop()


if __name__ == "__main__":
    main()
