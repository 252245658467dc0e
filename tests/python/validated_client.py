"""matrix-nio's client, unchanged in what it sends and understands; every answer is checked first."""

import json

from nio import AsyncClient

import spec_check


class ValidatedClient(AsyncClient):
    """An `AsyncClient` that fails on the first answer that breaks the specification.

    The check happens below nio: a failure would otherwise be swallowed, since nio turns what it
    cannot parse into an error response.
    """

    async def send(self, method, path, *args, **kwargs):
        answer = await super().send(method, path, *args, **kwargs)
        body = await answer.read()
        parsed = json.loads(body) if "json" in answer.content_type else None
        spec_check.check(method, answer.url.raw_path, answer.status, answer.headers, parsed)
        return answer
