"""Starts homeservers that find each other, for tests in another language: `servers.py parlour synapse`.

Says where they are, as JSON in one line; stops them when its standard input ends.
"""

import json
import pathlib
import sys
import tempfile

from conftest import Server
from federation import Authority, Synapse


def start(kind, directory, authority):
    if kind == "synapse":
        server = Synapse(directory, authority)
    else:
        directory.mkdir()
        server = Server(directory, authority)
    server.start()
    return server


def main(kinds):
    with tempfile.TemporaryDirectory(prefix="parlour-servers-") as home:
        home, servers = pathlib.Path(home), []
        authority = Authority(home)
        try:
            servers += (start(kind, home / str(n), authority) for n, kind in enumerate(kinds))
            print(json.dumps([{"name": one.name, "url": one.url} for one in servers]), flush=True)
            sys.stdin.read()
        finally:
            for server in servers:
                server.stop() if isinstance(server, Synapse) else server.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
