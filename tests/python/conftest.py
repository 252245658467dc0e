"""Starts the server under test: a child process with a data directory of its own."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

CONFIG = """
[server]
name = "localhost"
data_dir = "{data}"
test_mode = true

[[listeners]]
address = "127.0.0.1"
port = {port}
apis = ["client", "admin"]

[registration]
mode = "open"
"""


class Server:
    """A parlour process that can be killed and started again."""

    def __init__(self, directory):
        binary = os.environ.get("TEST_BINARY", ROOT / "target" / "debug" / "parlour")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "server.log"
        config = directory / "parlour.toml"
        config.write_text(CONFIG.format(data=directory / "data", port=port))
        self.command = [str(binary), "serve", "--config", str(config)]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            # The settings of whoever runs the tests are not the settings of the tests.
            env = {name: value for name, value in os.environ.items() if not name.startswith("PARLOUR_")}
            self.process = subprocess.Popen(
                self.command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()}"
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{self.url}/_matrix/client/versions", timeout=5).close()
                return
            time.sleep(0.02)
        raise AssertionError(f"the server did not answer:\n{self.log.read_text()}")

    def kill(self):
        """SIGKILL: nothing is flushed."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()
    print(server.log.read_text()[-16_000:])  # pytest shows it if the test failed
