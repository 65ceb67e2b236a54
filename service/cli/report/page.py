"""One HTML file that needs no other: style, scripts, pictures and data are part of it.

Most of the style and of the scripts is that of the server's page, read from its folder, which holds no code. A browser
loads no module from a file on disk, so the modules are put together into one script.
"""

import json
import re
import sys
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from service.cli.report.contents import Report
from service.names import one_line

_SHARED = files("service.http.pages")
_OWN = files("service.cli.report")

_IMPORT = re.compile(r'^import \{ ([\w, ]+) \} from "\./(\w+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:const|let|function|class) (\w+))", re.MULTILINE)
_OTHER_MODULE_SYNTAX = re.compile(r"^\s*(?:import|export)\b", re.MULTILINE)


def write_page(path: Path, report: Report) -> None:
    """Writes the page and says how large it is. Raises `OSError`."""
    content = page(report.contents()).encode()
    path.write_bytes(content)
    shown = len(report.shown)
    sys.stderr.write(
        f"{one_line(path)}: {shown} {'picture' if shown == 1 else 'pictures'}, {len(content) / 1e6:.1f} MB\n"
    )


def page(data: Mapping[str, Any]) -> str:
    """The whole page. data: what `report.js` reads; its texts may hold anything that UTF-8 can."""
    style = _text("style.css") + _text("report.css")
    theme, script = _text("theme.js"), bundled("report.js")
    return Template(_text("page.html")).substitute(
        policy=_policy(style, theme, script),
        icon=f"data:image/svg+xml;base64,{b64encode(_text('icon.svg').encode()).decode()}",
        style=style,
        theme=theme,
        script=script,
        data=_in_script(data),
    )


def bundled(name: str) -> str:
    """A module and all that it imports as one script. Each keeps a scope of its own."""
    parts: dict[str, str] = {}
    _bundle(name, parts)
    return f'"use strict";\nconst modules = {{}};\n{"".join(parts.values())}'


def _bundle(name: str, parts: dict[str, str]) -> None:
    """Adds a module to `parts`, behind those that it imports."""
    if name in parts:
        return
    source = _text(name)
    for imported in _IMPORT.finditer(source):
        _bundle(imported[2], parts)
    exported = ", ".join(_EXPORT.findall(source))
    body = _EXPORT.sub("", _IMPORT.sub(r'const { \1 } = modules["\2"];', source))
    if other := _OTHER_MODULE_SYNTAX.search(body):
        raise ValueError(f"{name} has {other[0].strip()!r} in a form that is not put together here")
    parts[name] = f'modules["{name}"] = (() => {{\n{body}return {{ {exported} }};\n}})();\n'


def _policy(style: str, *scripts: str) -> str:
    """Nothing is loaded from anywhere, and no script or style runs but those that are written into the page."""
    runs = " ".join(map(_hash, scripts))
    return (
        f"default-src 'none'; script-src {runs}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _in_script(data: Mapping[str, Any]) -> str:
    """JSON that stands inside a script element. Without a `<`, no text in it can end the element."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _text(name: str) -> str:
    own = _OWN / name
    return (own if own.is_file() else _SHARED / name).read_text(encoding="utf-8")
