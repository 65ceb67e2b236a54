// The panel "Packs": the user's pictures in the packs that ran them, and the last packs of everybody, live.

import { PackBars } from "./packs-bars.js";
import { follow } from "./packs-feed.js";
import { PackFigures } from "./packs-figures.js";
import { PacksMine } from "./packs-mine.js";
import { count } from "./words.js";

// As many as the server keeps.
const KEPT = 64;
// A screen reader is told no more often.
const SAY_EVERY_MS = 10_000;
// A pack that has ended is in the next line or, if its device is in another process, in the one after.
const LINES_UNTIL_KNOWN = 2;
// An answer that comes sooner needs no notice.
const ASKING_AFTER_MS = 1000;

const STATES = {
  asking: () => "Asking the server for its packs…",
  on: () => "",
  off: () => "This server does not tell of its packs (stats=off). Your own pictures are shown as far as their answers tell.",
  full: (message) => `The server does not tell of its packs now: ${message}. The page asks again by itself.`,
};

export function startPacks(root, pictures, server) {
  const find = (id) => root.querySelector(`#${id}`);
  const mine = new PacksMine(find("packs-mine"));
  const bars = new PackBars(find("packs-list"), find("packs-scale"));
  const figures = new PackFigures(find("packs-figures"), find("packs-stages"));
  // By id, the oldest first.
  const known = new Map();
  let isOpen = false;
  let following = null;
  let state = "asking";
  let saidMs = -Infinity;
  let frame = 0;
  let asking = 0;
  // Lines since pictures were embedded or the panel was opened.
  let lines = 0;

  const showMine = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(() => {
      if (!isOpen) return;
      const hasNative = server.info?.strategies.includes("native") ?? false;
      const waiting = state === "asking" || (state === "on" && lines < LINES_UNTIL_KNOWN);
      mine.show(pictures.embedded, known, { waiting, hasNative });
    });
  };

  const onLine = (line) => {
    for (const pack of line.packs) known.set(pack.id, pack);
    const wanted = new Set(pictures.embedded.map(({ result }) => result.packId));
    for (const id of [...known.keys()].slice(0, Math.max(0, known.size - KEPT))) if (!wanted.has(id)) known.delete(id);
    bars.add(line.packs);
    figures.show(line);
    find("packs-none").hidden = known.size > 0;
    lines++;
    if (line.packs.length || lines === LINES_UNTIL_KNOWN) showMine();
    say(line);
  };

  const say = ({ rates }) => {
    if (!rates || performance.now() - saidMs < SAY_EVERY_MS) return;
    saidMs = performance.now();
    const waste = rates.padding_waste === null ? "" : `, padding waste ${(100 * rates.padding_waste).toFixed(1)}%`;
    const said = rates.packs_per_s ? `${rates.images_per_s.toFixed(1)} images a second in ${count(Math.round(rates.packs_per_s * rates.over_s), "pack")} lately${waste}` : "No packs lately";
    put(find("packs-said"), said);
  };

  const onState = (name, message) => {
    state = name;
    clearTimeout(asking);
    const words = STATES[name](message);
    const show = () => put(find("packs-state"), words);
    if (name === "asking") asking = setTimeout(show, ASKING_AFTER_MS);
    else show();
    find("packs-live").hidden = name === "off";
    if (name === "asking") figures.forget();
    if (name === "off" || name === "full") showMine();
  };

  // There is a connection only while somebody can see what it brings.
  const begin = () => {
    if (!isOpen || document.hidden || following) return;
    following = new AbortController();
    follow(server, following.signal, { onLine, onState });
  };
  const end = () => {
    clearTimeout(asking);
    following?.abort();
    following = null;
  };

  document.addEventListener("visibilitychange", () => (document.hidden ? end() : begin()));
  pictures.addEventListener("change", () => {
    lines = 0;
    showMine();
  });
  addEventListener("resize", () => {
    if (!isOpen) return;
    bars.draw();
    showMine();
  });
  addEventListener("themechange", () => isOpen && bars.draw());
  return {
    open: () => {
      isOpen = true;
      lines = 0;
      bars.draw();
      showMine();
      begin();
    },
    close: () => {
      isOpen = false;
      end();
    },
  };
}

// An unchanged text is left alone: a screen reader would say it again.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
