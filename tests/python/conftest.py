"""Starts the server under test: a child process with a data directory of its own."""

import os
import pathlib
import subprocess

import pytest

from federation import Authority, Synapse, await_answer, federated_config, free_port

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

[federation]
enabled = false
"""


class Server:
    """A parlour process that can be killed and started again."""

    def __init__(self, directory, authority=None):
        binary = os.environ.get("TEST_BINARY", ROOT / "target" / "debug" / "parlour")
        if authority:
            text, self.name, self.url = federated_config(directory, authority)
        else:
            port = free_port()
            text = CONFIG.format(data=directory / "data", port=port)
            self.name, self.url = "localhost", f"http://127.0.0.1:{port}"
        self.log = directory / "server.log"
        config = directory / "parlour.toml"
        config.write_text(text)
        self.command = [str(binary), "serve", "--config", str(config)]
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            # The settings of whoever runs the tests are not the settings of the tests.
            env = {name: value for name, value in os.environ.items() if not name.startswith("PARLOUR_")}
            self.process = subprocess.Popen(
                self.command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        await_answer(self.process, f"{self.url}/_matrix/client/versions", self.log)

    def kill(self):
        """SIGKILL: nothing is flushed."""
        if self.process:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()
    print(server.log.read_text()[-16_000:])  # pytest shows it if the test failed


@pytest.fixture
def federation(tmp_path):
    """A Parlour and a Synapse that find each other."""
    yield from side_by_side(tmp_path)


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory):
    """The same for all tests of a file."""
    yield from side_by_side(tmp_path_factory.mktemp("neighbours"))


def side_by_side(directory):
    authority = Authority(directory)
    server, synapse = Server(directory, authority), Synapse(directory / "synapse", authority)
    try:
        server.start()
        synapse.start()
        yield server, synapse
    finally:
        server.kill()
        synapse.stop()
        for log in (server.log, synapse.log):
            print(log.read_text()[-16_000:] if log.exists() else "")
