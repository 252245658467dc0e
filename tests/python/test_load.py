"""`parlour load` against a real Synapse as well as Parlour: nothing in it knows which of them it is."""

import json
import shutil
import subprocess

import pytest

SCENARIOS = {
    "send": ["send", "--senders", "3", "--rooms", "2", "--count", "30"],
    "fanout": ["fanout", "--receivers", "5", "--count", "10"],
    "join-storm": ["join-storm", "--users", "6"],
    "paginate": ["paginate", "--users", "2", "--messages", "40", "--page", "15", "--count", "12"],
    "incremental-sync": ["incremental-sync", "--users", "2", "--rooms", "3", "--count", "10"],
    "federation-in": ["federation-in", "--servers", "2", "--pdus", "5", "--count", "6"],
    "federation-out": ["federation-out", "--destinations", "2", "--dead", "1", "--count", "10"],
}


def run(binary, directory, server, scenario):
    """The summary of a scenario, which must succeed."""
    lines = directory / "run.jsonl"
    command = [
        binary, "load", *scenario, "--target", server.url, "--warm-up", "0s", "--json", lines,
    ]
    if scenario[0].startswith("federation"):
        command += ["--certificates", directory / "played"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all there, once, in order" in done.stdout
    return json.loads(lines.read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def played(neighbours, tmp_path_factory):
    """A directory with certificates for played servers, which both servers believe."""
    server, synapse = neighbours
    authority = synapse.authority
    directory = tmp_path_factory.mktemp("load")
    (directory / "played").mkdir()
    certificate, key = authority.issue("played")
    for source, name in ((authority.file, "ca.pem"), (certificate, "tls.pem"), (key, "tls.key")):
        shutil.copy(source, directory / "played" / name)
    return directory


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_load_for_both(neighbours, played, scenario):
    server, synapse = neighbours
    binary = server.command[0]
    ours, theirs = (run(binary, played, one, SCENARIOS[scenario]) for one in (server, synapse))
    assert (ours["label"].split()[0], theirs["label"].split()[0]) == ("Parlour", "Synapse")
    for summary in (ours, theirs):
        assert summary["errors"] == {}
        assert all(series["count"] > 0 for series in summary["series"])
    assert ours["verification"]["checked"] > 0
    # Each is as large a task for one as for the other.
    counts = [[(s["name"], s["count"]) for s in one["series"]] for one in (ours, theirs)]
    assert counts[0] == counts[1]
