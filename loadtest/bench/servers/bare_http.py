"""An application that reads a body and answers as many bytes as an embedding takes: the least that a request costs.

`python -m uvicorn loadtest.bench.servers.bare_http:app` serves it with the same parser, loop and options as ours.
"""

import time

from starlette.types import Receive, Scope, Send

_ANSWER = b" " * 3000


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    began_s = time.monotonic()
    while scope["method"] == "POST" and (await receive()).get("more_body", False):
        pass
    timing = f"receive;dur={(time.monotonic() - began_s) * 1000:.3f}, decode;dur=0, forward;dur=0"
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(_ANSWER)),
        (b"server-timing", timing.encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER, "more_body": False})
