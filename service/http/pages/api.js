// Calls to the server: its key, its errors, and waiting for it when it is away. Knows nothing of the page.

// Where the server is, prefix included: this file is <server>/pages/api.js.
const ROOT = new URL("..", import.meta.url);
const KEY = "packlight.key";
const CUT = "the connection was cut before the server answered, or the file can no longer be read";
const FOREIGN = "the answer is not the server's: something between this page and the server sent it";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;
// A call that fails this often while the server says that it is ready fails for good.
const MOST_CUTS = 3;

// An answer that is no success. code and message are the server's own; retryAfterS is set where it says when to return.
export class ServerError extends Error {
  constructor(status, code, message, retryAfterS = null) {
    super(message);
    Object.assign(this, { status, code, retryAfterS });
  }
}

// Events: "info" (`info` was read), "key" (a call waits for a key), "away" and "back".
export class Server extends EventTarget {
  info = null;
  #key = kept();
  #waitingForKey = null;
  #return = null;

  get usesKey() {
    return this.#key !== "";
  }

  // The address of a path, with parameters as its query. Those that are null are left out.
  url(path, parameters = {}) {
    const url = new URL(path, ROOT);
    for (const [name, value] of Object.entries(parameters)) {
      if (value !== null) url.searchParams.set(name, value);
    }
    return url;
  }

  // The answer to a call. Waits while a key is asked for and while the server is away. Throws ServerError, or an
  // AbortError if `signal` says so.
  async fetch(url, options = {}) {
    const { signal } = options;
    for (let cuts = 0; ; ) {
      const key = this.#key;
      const answer = await this.#once(url, options, key);
      signal?.throwIfAborted();
      if (answer?.status === 401) {
        if (key === this.#key) await unlessAborted(this.#askForKey(), signal);
      } else if (isAway(answer)) {
        const wasReady = await unlessAborted(this.#waitForReturn(), signal);
        cuts += wasReady ? 1 : 0;
        if (cuts >= MOST_CUTS) throw answer ? await errorOf(answer) : new ServerError(0, "cut", CUT);
        // Ready, and yet not for this call.
        if (wasReady && answer) await unlessAborted(pause(Math.min(1000 * (retryAfterOf(answer) ?? 1), LONGEST_WAIT_MS)), signal);
      } else if (answer.ok) {
        return answer;
      } else {
        throw await errorOf(answer);
      }
    }
  }

  async json(url, options) {
    return contentOf(await this.fetch(url, options));
  }

  postJson(path, content, signal) {
    const headers = { "Content-Type": "application/json" };
    return this.json(this.url(path), { method: "POST", headers, body: JSON.stringify(content), signal });
  }

  async readInfo() {
    this.info = await this.json(this.url("info"));
    this.dispatchEvent(new Event("info"));
  }

  // Tries a key. Returns whether the server takes it; if so, waiting calls go on.
  async giveKey(key) {
    // Anything else is no key, and cannot be sent in a header.
    if (!/^[\x21-\x7e]+$/.test(key)) return false;
    const answer = await this.#once(this.url("info"), {}, key);
    if (answer?.status === 401) return false;
    this.#key = key;
    keep(key);
    this.#waitingForKey?.resolve();
    this.#waitingForKey = null;
    return true;
  }

  // null where no answer came.
  async #once(url, options, key) {
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    try {
      return await fetch(url, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return null;
    }
  }

  #askForKey() {
    if (!this.#waitingForKey) {
      this.#waitingForKey = withResolvers();
      this.dispatchEvent(new CustomEvent("key", { detail: { refused: this.usesKey } }));
    }
    return this.#waitingForKey.promise;
  }

  // All calls wait for one return. Resolves to whether the server was ready at the first question.
  #waitForReturn() {
    this.#return ??= this.#pollUntilReady().finally(() => (this.#return = null));
    return this.#return;
  }

  async #pollUntilReady() {
    if (await this.#isReady()) return true;
    this.dispatchEvent(new Event("away"));
    for (let waitMs = FIRST_WAIT_MS; ; waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS)) {
      await pause(waitMs);
      if (await this.#isReady()) break;
    }
    this.dispatchEvent(new Event("back"));
    return false;
  }

  async #isReady() {
    return (await this.#once(this.url("readyz"), {}, ""))?.ok ?? false;
  }
}

// What an answer says. Throws ServerError if it breaks off, or is a page such as that of a login.
export async function contentOf(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(answer.status, "unknown", error instanceof SyntaxError ? FOREIGN : CUT);
  }
}

// No answer, one of a server that is starting or stopping, or one of a proxy that has lost its server.
function isAway(answer) {
  if (answer === null || answer.status === 502 || answer.status === 503) return true;
  return answer.status === 504 && !answer.headers.get("Content-Type")?.includes("json");
}

// Seconds, as the server asks for them or, as a proxy may, until a date. null where it asks for none.
function retryAfterOf({ headers }) {
  const asked = headers.get("Retry-After");
  const seconds = Number(asked) || Math.ceil((Date.parse(asked) - Date.now()) / 1000);
  return seconds > 0 ? seconds : null;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function errorOf(answer) {
  const retryAfterS = retryAfterOf(answer);
  try {
    const { code, message } = (await answer.json()).error;
    return new ServerError(answer.status, code, message, retryAfterS);
  } catch {
    // A proxy's own page.
    return new ServerError(answer.status, "unknown", `the answer was a ${answer.status}`, retryAfterS);
  }
}

// For the tab alone. A browser may forbid it; then the key lasts as long as the page.
function keep(key) {
  try {
    sessionStorage.setItem(KEY, key);
  } catch {}
}

function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

// The promise's value, or an AbortError as soon as `signal` says so.
export function unlessAborted(promise, signal) {
  if (!signal) return promise;
  return Promise.race([
    promise,
    new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true })),
  ]);
}

function withResolvers() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
