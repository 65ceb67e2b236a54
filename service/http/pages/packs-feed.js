// Follows `/stats` for as long as it is wanted, and comes back to it after whatever ends it. Draws nothing.

import { unlessAborted } from "./api.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

// Calls `onLine` with every line: see `StatsLine` in the API's page. Calls `onState` with
//   "asking"  no line has come yet; the shell asks for a key, or says that the server is away
//   "on"      lines come
//   "off"     the server has no /stats; nothing more is asked
//   "full"    too many follow it, or it failed, with the server's words; asked again later
// Returns when `signal` says so, or after "off".
export async function follow(server, signal, { onLine, onState }) {
  let waitMs = FIRST_WAIT_MS;
  while (!signal.aborted) {
    let pauseMs = waitMs;
    try {
      onState("asking");
      const answer = await server.fetch(server.url("stats"), { signal });
      for await (const line of linesOf(answer.body)) {
        waitMs = pauseMs = FIRST_WAIT_MS;
        onState("on");
        onLine(line);
      }
      // The server drains. What comes next is another one, or nothing for a while.
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 404) return onState("off");
      if (error.status) onState("full", error.message);
      pauseMs = Math.max(pauseMs, 1000 * (error.retryAfterS ?? 0));
    }
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
    await unlessAborted(new Promise((resolve) => setTimeout(resolve, pauseMs)), signal).catch(() => null);
  }
}

async function* linesOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) yield JSON.parse(line);
    }
  } finally {
    // After a line that cannot be read, or shown, the connection would stay open beside the next one.
    reader.cancel().catch(() => null);
  }
}
