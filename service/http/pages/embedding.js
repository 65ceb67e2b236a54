// Sends pictures to `/embed`, one a request and a few at a time, so that others are answered meanwhile.

import { contentOf, unlessAborted } from "./api.js";

const AT_ONCE = 4;

// What `/embed` is asked for: the query of every request, and of the code in "Take it along".
export function parametersOf({ budget, strategy }) {
  return { max_tokens: budget, strategy };
}

// Embeds every picture that has no current vector and is not at work already. Each gets a `result` or a `failure`.
// Returns when all are done, or when `signal` stops it.
export async function embedAll(pictures, server, signal) {
  const choice = pictures.choice;
  const queue = pictures.list.filter((picture) => !pictures.isCurrent(picture) && !picture.work);
  for (const picture of queue) pictures.update(picture, { work: "waiting", note: "", failure: "" });

  const embedNext = async (picture) => {
    const busy = (waitS) => pictures.update(picture, { note: `The server is busy and asks for a pause of ${waitS} s.` });
    pictures.update(picture, { work: "embedding" });
    try {
      const result = await embedFile(server, picture.file, choice, { signal, busy });
      pictures.update(picture, { work: "", note: "", result, size: result.size });
      // Somebody may have started the server anew with another model.
      if (result.fingerprint !== server.info.fingerprint.value) server.readInfo().catch(() => null);
    } catch (error) {
      const failure = error.name === "AbortError" ? "" : error.message;
      pictures.update(picture, { work: "", note: "", failure });
    }
  };
  const worker = async () => {
    while (queue.length && !signal.aborted) {
      const picture = queue.shift();
      // It may have been removed meanwhile, and may come back.
      if (pictures.has(picture)) await embedNext(picture);
      else pictures.update(picture, { work: "", note: "" });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  for (const picture of queue) pictures.update(picture, { work: "", note: "" });
}

// Embeds one file under a choice {budget, strategy}. Waits as long as the server asks for, and calls `busy` with the
// seconds. Throws ServerError, or an AbortError.
//
// The result: {model, fingerprint, embedding (Float32Array), tokens, tokenCap, grid, size, resized, segments} are the
// fields of the answer; {budget, strategy} what was chosen; ms the time as the page saw it; stages the server's own times
// in ms; packId the pack that ran it, as `/stats` names it.
export function embedFile(server, file, choice, { signal, busy } = {}) {
  const url = server.url("embed", parametersOf(choice));
  // The server looks at the bytes. What the browser takes the type for does not matter.
  const options = { method: "POST", body: file, headers: { "Content-Type": "image/*" }, signal };
  const embed = async () => {
    const startedMs = performance.now();
    const answer = await server.fetch(url, options);
    const { model, fingerprint, data } = await contentOf(answer);
    const ms = performance.now() - startedMs;
    const { embedding, tokens, token_cap: tokenCap, grid, size, resized, segments = [] } = data[0];
    return {
      model, fingerprint, embedding: Float32Array.from(embedding), tokens, tokenCap, grid, size, resized, segments, ms,
      stages: stagesOf(answer), packId: answer.headers.get("Packlight-Packs"), ...choice,
    };
  };
  return whenFree(embed, { signal, busy });
}

// What `call` returns. Calls again while the server has no room for it, as soon as it asks to; `busy` gets the seconds.
export async function whenFree(call, { signal, busy = () => {} } = {}) {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (error.status !== 429) throw error;
      const waitS = error.retryAfterS ?? 1;
      busy(waitS);
      await unlessAborted(new Promise((resolve) => setTimeout(resolve, waitS * 1000)), signal);
    }
  }
}

// {decode: 1.2, forward: 30.5, …} from `Server-Timing`.
function stagesOf(answer) {
  const header = answer.headers.get("Server-Timing") ?? "";
  return Object.fromEntries([...header.matchAll(/(\w+);dur=([\d.]+)/g)].map(([, stage, ms]) => [stage, Number(ms)]));
}
