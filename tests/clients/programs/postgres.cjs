// PostgreSQL with pgvector, compiled to WebAssembly: it needs no account and no installation, and ends with its process.
// Prints the port that it listens on.
const { PGlite } = require("@electric-sql/pglite");
const { vector } = require("@electric-sql/pglite-pgvector");
const { PGLiteSocketServer } = require("@electric-sql/pglite-socket");

PGlite.create({ extensions: { vector } }).then(async (db) => {
  const server = new PGLiteSocketServer({ db, port: 0, maxConnections: 4 });
  await server.start();
  console.log(server.getServerConn().split(":").pop());
});
