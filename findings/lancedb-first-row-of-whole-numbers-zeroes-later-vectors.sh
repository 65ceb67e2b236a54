#!/usr/bin/env bash
# LanceDB: a table made from a first vector of integers stores every later embedding as zeros.
#
# Versions: lancedb 0.40.0, pyarrow 26.0.1. Seen on 2026-11-29.
# Behaviour: create_table infers the type of the vector column from the first rows. A list or NumPy array of integers
#   from 0 to 255 makes it uint8. Embeddings that are added later are cast to it without an error, so that every
#   component between -1 and 1 becomes 0. A table made from a schema keeps them.
# Output seen:
#   inferred: fixed_size_list<item: uint8>[4] [0, 0, 0, 0]
#   declared: fixed_size_list<item: float>[4] [0.6000000238418579, -0.47999998927116394, 0.6399999856948853, 0.0]
# Why it matters: a placeholder of integers as the first row (zeros, a one-hot test vector, an int8-quantised embedding)
#   ruins the whole index of normalised embeddings, and nothing says so. Create the table from a schema.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet lancedb==0.40.0 pyarrow==26.0.1
venv/bin/python - <<'PYTHON'
import sys

import lancedb
import pyarrow as pa

embedding = [0.6, -0.48, 0.64, 0.0]
database = lancedb.connect("store")
inferred = database.create_table("inferred", [{"id": 0, "vector": [1, 0, 0, 0]}])
inferred.add([{"id": 1, "vector": embedding}])
schema = pa.schema([("id", pa.int64()), ("vector", pa.list_(pa.float32(), 4))])
declared = database.create_table("declared", [{"id": 0, "vector": [1, 0, 0, 0]}], schema=schema)
declared.add([{"id": 1, "vector": embedding}])


def stored(table) -> list[float]:
    return next(row["vector"] for row in table.to_arrow().to_pylist() if row["id"] == 1)


for name, table in (("inferred", inferred), ("declared", declared)):
    print(f"{name}: {table.schema.field('vector').type} {stored(table)}")
sys.exit(0 if not any(stored(inferred)) and any(stored(declared)) else "the behaviour has changed")
PYTHON
