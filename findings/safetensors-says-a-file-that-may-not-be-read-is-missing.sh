#!/usr/bin/env bash
# safetensors: a file that the user may not read is reported as one that does not exist.
#
# Versions: safetensors 0.8.0, numpy 2.4.6. Seen on 2026-11-30.
# Behaviour: safe_open on a file without the permission to read it raises FileNotFoundError, "No such file or directory",
#   although the file is there. Python's own open raises PermissionError.
# Output seen:
#   open: PermissionError: [Errno 13] Permission denied: 'model.safetensors'
#   safe_open: FileNotFoundError: No such file or directory: model.safetensors
# Why it matters: a server in a container runs as another user than the one who downloaded the model, whose files are
#   often readable by their owner alone. The message sends the operator to look at the mount, where nothing is wrong.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet safetensors==0.8.0 numpy==2.4.6
venv/bin/python - <<'PYTHON'
import os
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

save_file({"a": np.zeros(1, np.float32)}, "model.safetensors")
os.chmod("model.safetensors", 0)
if os.geteuid() == 0:
    # Root may read all. The folder stays open to the user who may not read the file.
    os.chmod(".", 0o755)
    os.seteuid(65534)


def told(how) -> str:
    try:
        how()
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "read"


by_python = told(lambda: open("model.safetensors", "rb"))
by_safetensors = told(lambda: safe_open("model.safetensors", framework="np").__enter__())
print(f"open: {by_python}\nsafe_open: {by_safetensors}")
seen = by_python.startswith("PermissionError") and by_safetensors.startswith("FileNotFoundError")
sys.exit(0 if seen else "the behaviour has changed")
PYTHON
