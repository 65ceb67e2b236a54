// Keeps every picture's `plan`: what the server would make of it under what is chosen now. The server is asked with
// sizes alone (`POST /plan`): it moves no pixels and takes no time of the device.

import { whenFree } from "./embedding.js";

const PAUSE_MS = 60;
const MOST_SIZES = 256;
// No bound for all pictures together: each has its own cap.
const NO_BUDGET = 1e15;

// A plan is {budget, strategy, refusal, own, others}: what was chosen; why the picture cannot be taken so, or ""; and
// options of `/plan` for the served model's strategies and for other models. An option has tokens, grid, resized,
// segments and a remark, or tokens null where the picture cannot be taken; the remark then says why.

// What becomes of the picture under the chosen strategy. null if that is not known yet, or if it cannot be taken.
export function optionOf(picture) {
  const { plan } = picture;
  if (!plan || plan.refusal) return null;
  return plan.own.find((option) => option.strategy === plan.strategy) ?? null;
}

// Asks whenever something changed that the answer depends on. `onTotals` gets the sums of the newest answer.
export function keepPlans(pictures, server, onTotals) {
  let asked = "";
  let timer = 0;
  let running = new AbortController();

  const ask = async () => {
    running.abort();
    running = new AbortController();
    const { signal } = running;
    const { choice } = pictures;
    const sized = pictures.list.filter((picture) => picture.size);
    try {
      const plans = await planned(server, choice, sized, signal);
      for (const picture of sized) {
        if (pictures.has(picture)) pictures.update(picture, { plan: plans.bySize.get(`${picture.size}`) });
      }
      onTotals(plans.totals);
    } catch (error) {
      if (error.name === "AbortError") return;
      // Asked again with the next change.
      asked = "";
      onTotals(null, error.message);
    }
  };

  const consider = () => {
    if (!pictures.choice.strategy) return;
    const sizes = pictures.list.map((picture) => picture.size).filter(Boolean);
    const question = JSON.stringify([pictures.choice, sizes]);
    if (question === asked) return;
    asked = question;
    clearTimeout(timer);
    timer = setTimeout(ask, PAUSE_MS);
  };
  pictures.addEventListener("change", consider);
  // After a return the server may be another one.
  server.addEventListener("back", () => {
    asked = "";
    consider();
  });
}

async function planned(server, { budget, strategy }, pictures, signal) {
  const counts = new Map();
  for (const { size } of pictures) counts.set(`${size}`, (counts.get(`${size}`) ?? 0) + 1);
  const groups = [...counts].map(([size, count]) => {
    const [height, width] = size.split(",").map(Number);
    return { height, width, count, task: "photo", ...(budget && { max_tokens: budget }) };
  });
  const bySize = new Map();
  const totals = { images: 0, tokens: 0, fixed_square: 0, pad_to_cap: 0 };
  for (let first = 0; first < groups.length; first += MOST_SIZES) {
    const workload = groups.slice(first, first + MOST_SIZES);
    const ask = () => server.postJson("plan", { workload, budget_tokens: NO_BUDGET, strategy }, signal);
    const answer = await whenFree(ask, { signal });
    for (const { group, take, why, options } of answer.groups) {
      const own = options.filter((option) => option.loaded);
      const others = options.filter((option) => !option.loaded);
      bySize.set(`${[group.height, group.width]}`, { budget, strategy, refusal: take ? "" : why, own, others });
    }
    for (const name of Object.keys(totals)) totals[name] += answer.totals[name] ?? 0;
  }
  return { bySize, totals };
}
