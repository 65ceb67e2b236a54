#!/usr/bin/env bash
# uvicorn with httptools: the trailers of a chunked body become headers of the request that is already running.
#
# Versions: uvicorn 0.54.0, httptools 0.9.0, h11 0.16.0. Seen on 2026-11-29.
# Behaviour: httptools calls `on_header` for trailers as it does for headers, and uvicorn's protocol appends each to the
#   list that is `scope["headers"]`. An application that reads a header after the body sees what came behind the body. With
#   h11 it does not.
# Output seen (the headers named x-user after the body was read; the client sends one in its head and one as a trailer):
#   httptools: alice, mallory
#   h11: alice
# Why it matters: RFC 9110, 6.5.1, forbids to merge trailers into the headers unless their definition allows it. A proxy in
#   front that sets or checks a header looks at the head alone. Whatever reads a header late, such as an Accept after the
#   upload, or the last of several values, takes it from the trailer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet uvicorn==0.54.0 httptools==0.9.0 h11==0.16.0
venv/bin/python - <<'PYTHON'
import socket
import sys
import threading
import time

import uvicorn

REQUEST = (
    b"POST / HTTP/1.1\r\nHost: a\r\nX-User: alice\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n0\r\nX-User: mallory\r\n\r\n"
)


async def app(scope, receive, send):
    while (await receive())["more_body"]:
        pass
    found = b", ".join(value for name, value in scope["headers"] if name == b"x-user")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(found))]})
    await send({"type": "http.response.body", "body": found})


def answer(parser: str) -> str:
    server = uvicorn.Server(uvicorn.Config(app, port=0, http=parser, ws="none", lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with socket.create_connection(server.servers[0].sockets[0].getsockname()) as connection:
        connection.sendall(REQUEST)
        received = b"".join(iter(lambda: connection.recv(4096), b""))
    server.should_exit = True
    thread.join()
    return received.rpartition(b"\r\n\r\n")[2].decode()


stated = {"httptools": "alice, mallory", "h11": "alice"}
found = {parser: answer(parser) for parser in stated}
for parser, names in found.items():
    print(f"{parser}: {names}")
sys.exit(0 if found == stated else "the behaviour has changed")
PYTHON
