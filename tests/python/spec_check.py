"""Checks answers against the OpenAPI definitions in tests/spec.

The same rules as tests/common/schema.rs and own_checks.rs, for the answers that a Python client gets.
"""

import atexit
import collections
import functools
import json
import os
import pathlib
import re
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPEC = ROOT / "tests" / "spec"

_seen = collections.Counter()


@functools.cache
def _document(name):
    return json.loads((SPEC / name).read_text())


def _split(path):
    """The version of a path, if it has one, and its other segments."""
    segments = path.split("/")[1:]
    if len(segments) == 7 and segments[3] == "rooms" and segments[5] == "state":
        segments.append("")
    version = None
    if len(segments) > 3 and segments[0] == "_matrix":
        if re.fullmatch(r"[rv]\d+|unstable", segments[2]):
            version = segments.pop(2)
    return version, segments


def _template(path):
    """The path template of the specification that fits best."""
    version, segments = _split(path)
    best = None
    for template in _document("client-server.json")["paths"]:
        its_version, wanted = _split(template)
        if len(wanted) != len(segments):
            continue
        if not all(w == s or (w[:1] == "{" and (s or w == "{stateKey}")) for w, s in zip(wanted, segments)):
            continue
        literal = sum(not part.startswith("{") for part in wanted)
        rank = (literal, its_version == version)
        if best is None or rank > best[0]:
            best = (rank, template)
    return best and best[1]


@functools.cache
def _validator(template, method, status):
    document = _document("client-server.json")
    operation = document["paths"].get(template, {}).get(method.lower())
    if operation is None:
        return None
    answer = operation["responses"].get(str(status), {})
    media = answer.get("content", {}).get("application/json")
    if media is None:
        if status < 400 and not answer.get("content"):
            raise AssertionError(f"{method} {template}: the spec has no {status}")
        media = {"schema": {"$ref": "#/components/schemas/errors.error"}}
    schema = {"allOf": [media["schema"]], "components": document["components"]}
    return Draft202012Validator(schema)


@functools.cache
def _event_validator(kind):
    document = _document("event-schemas.json")
    if kind not in document["events"]:
        return None
    return Draft202012Validator({"allOf": [document["events"][kind]], "$defs": document["$defs"]})


def _against(validator, what, body):
    errors = [f"{error.message} at {error.json_path}" for error in validator.iter_errors(body)]
    assert not errors, f"{what} breaks the spec: {'; '.join(errors)}\n{body}"


def _check_events(body):
    if isinstance(body, list):
        for item in body:
            _check_events(item)
    elif isinstance(body, dict):
        if isinstance(body.get("type"), str) and isinstance(body.get("content"), dict):
            _check_event(body)
        for key, item in body.items():
            if key != "content":
                _check_events(item)


def _check_event(event):
    if event["content"] == {} or "redacted_because" in event.get("unsigned", {}):
        return
    kind = f"{event['type']}${event['content'].get('msgtype', '')}"
    validator = _event_validator(kind) or _event_validator(event["type"])
    if validator:
        # Stripped state and /sync leave these out; the schemas of whole events demand them.
        filled = {"event_id": "$filled", "room_id": "!filled:in", "sender": "@filled:in", "origin_server_ts": 0}
        _against(validator, event["type"], filled | event)


def _check_sync(body):
    for event in body.get("to_device", {}).get("events", []):
        assert {"type", "content", "sender"} <= event.keys(), f"to_device: {event}"
    for key in ("changed", "left"):
        users = body.get("device_lists", {}).get(key, [])
        assert all(isinstance(user, str) and user.startswith("@") for user in users), users
    for section, key in (("invite", "invite_state"), ("knock", "knock_state")):
        for room, about in body.get("rooms", {}).get(section, {}).items():
            kinds = [event["type"] for event in about[key]["events"]]
            assert "m.room.create" in kinds, f"{section} {room}: {kinds}"


def check(method, url, status, headers, body):
    """Fails if an answer is not what the specification says."""
    path = urlsplit(str(url)).path
    assert headers.get("Access-Control-Allow-Origin") == "*", f"{method} {path}: no CORS headers"
    template = _template(path)
    validator = template and _validator(template, method, status)
    if validator is None:
        assert status in (404, 405), f"{method} {path}: {status}, but the spec has no such operation"
        return
    test = os.environ.get("PYTEST_CURRENT_TEST", "python").split(" ")[0].removeprefix("tests/python/")
    if not (isinstance(body, dict) and body.get("errcode") == "M_UNRECOGNIZED"):
        _seen[(method, template, status, test)] += 1
    _against(validator, f"{method} {path} {status}", body)
    _check_events(body)
    if template.endswith("/v3/sync") and status == 200:
        _check_sync(body)


@atexit.register
def _write_coverage():
    if not _seen:
        return
    directory = ROOT / "target" / "spec-coverage"
    directory.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(map(str, (*key, count))) for key, count in sorted(_seen.items())]
    (directory / f"python-{os.getpid()}.tsv").write_text("\n".join(lines) + "\n")
