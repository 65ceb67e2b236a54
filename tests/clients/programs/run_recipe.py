"""Runs a recipe of docs/clients/ as `python FILE FOLDER PICTURE` does, then more statements over its names.

`python run_recipe.py FILE STATEMENTS OUT FOLDER PICTURE`. The statements set `seen`, which OUT gets as JSON.
The recipes' own virtual environment runs it.
"""

import json
import sys
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Lists and numbers in place of arrays; each float32 as the same number."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    program, statements, out = sys.argv[1:4]
    sys.argv = [program, *sys.argv[4:]]
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(Path(program).read_text(encoding="utf-8"), program, "exec"), names)
    exec(statements, names)
    Path(out).write_text(json.dumps(plain(names["seen"])), encoding="utf-8")
