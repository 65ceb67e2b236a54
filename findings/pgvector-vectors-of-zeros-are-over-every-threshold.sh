#!/usr/bin/env bash
# pgvector: a vector of zeros is over every threshold, of distance and of similarity, and an index by cosine has it not.
#
# Versions: pgvector 0.8.7 in PGlite 0.5.14 (PostgreSQL 18.6). Seen on 2026-11-30.
# Behaviour: a column of type vector takes zeros. Their cosine distance to anything is NaN, and PostgreSQL holds NaN to be
#   greater than every number. So `distance > 0.5` is true of them, and so is `1 - distance > 0.5`: they are far and similar
#   at once. `distance < 0.5` is not true. Ordered by distance they come last; HNSW and IVFFlat indexes by cosine leave them
#   out, so that the rows which a query returns depend on whether it used the index.
# Output seen (ids; 1 equals the query, 2 is similar, 3 is at a right angle, 4 is zeros):
#   no index: ordered 1,2,3,4; far 3,4; similar 1,2,4
#   hnsw: ordered 1,2,3; far 3,4; similar 1,2,4
#   ivfflat: ordered 1,2,3; far 3,4; similar 1,2,4
# Why it matters: one blank embedding, kept as zeros, matches every search for a similarity over a threshold. Leave the row
#   out, or refuse it: CHECK (vector_norm(embedding) > 0).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund @electric-sql/pglite@0.5.14 @electric-sql/pglite-pgvector@0.0.15
cat > ask.mjs <<'JAVASCRIPT'
import { PGlite } from "@electric-sql/pglite";
import { vector } from "@electric-sql/pglite-pgvector";

const database = await PGlite.create({ extensions: { vector } });
const ids = async (rest) => (await database.query(`SELECT id FROM pictures ${rest}`)).rows.map((row) => row.id).join();
const seen = async () =>
  `ordered ${await ids("ORDER BY v <=> '[1,0]'")}; far ${await ids("WHERE v <=> '[1,0]' > 0.5 ORDER BY id")}; ` +
  `similar ${await ids("WHERE 1 - (v <=> '[1,0]') > 0.5 ORDER BY id")}`;

await database.exec(`
  CREATE EXTENSION vector;
  CREATE TABLE pictures (id int, v vector(2) NOT NULL);
  INSERT INTO pictures VALUES (1, '[1,0]'), (2, '[0.8,0.6]'), (3, '[0,1]'), (4, '[0,0]');
  SET enable_seqscan = off`);
const found = { "no index": await seen() };
for (const [name, options] of Object.entries({ hnsw: "", ivfflat: "WITH (lists = 1)" })) {
  await database.exec(`CREATE INDEX by_cosine ON pictures USING ${name} (v vector_cosine_ops) ${options}`);
  found[name] = await seen();
  await database.exec("DROP INDEX by_cosine");
}
for (const [name, line] of Object.entries(found)) console.log(`${name}: ${line}`);
const refused = await database
  .exec("ALTER TABLE pictures ADD CHECK (vector_norm(v) > 0)")
  .then(() => false, () => true);
const indexed = "ordered 1,2,3; far 3,4; similar 1,2,4";
const stated = { "no index": "ordered 1,2,3,4; far 3,4; similar 1,2,4", hnsw: indexed, ivfflat: indexed };
const same = Object.keys(stated).every((name) => found[name] === stated[name]) && refused;
if (!same) console.error("the behaviour has changed");
process.exit(same ? 0 : 1);
JAVASCRIPT
node ask.mjs
