// The shell of the page: its panels and tabs, what is served, the key, and the notice while the server is away.

import { Server } from "./api.js";
import { show as showOrHide } from "./controls.js";
import { startNear } from "./near.js";
import { startPacks } from "./packs.js";
import { Pictures } from "./pictures.js";
import { keepPlans } from "./plans.js";
import { addSamples } from "./samples.js";
import { startTake } from "./take.js";
import { startTry } from "./try.js";

// A panel is a function of its element, the shared pictures and the server, called once. What it returns may have
// `open()` and `close()`, called when its tab is chosen and left. To add one: a tab and a section in index.html, its
// module here.
const PANELS = { try: startTry, packs: startPacks, near: startNear, take: startTake };

const server = new Server();
const pictures = new Pictures();
const byId = (id) => document.getElementById(id);

const started = new Map(Object.entries(PANELS).map(([id, start]) => [id, start(byId(id), pictures, server) ?? {}]));
keepPlans(pictures, server, (totals, problem) => started.get("try").showTotals(totals, problem));
startTabs();
startKey();
startAway();
server.addEventListener("info", showServed);
server.addEventListener("info", () => pictures.keepVectorsOf(server.info.fingerprint.value));
server.addEventListener("back", () => server.readInfo().catch(showProblem));
server.readInfo().then(() => addSamples(pictures, server, { unasked: true })).catch(showProblem);

function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  let opened = null;

  const open = (id, { focus = false } = {}) => {
    if (!started.has(id)) id = tabs[0].getAttribute("aria-controls");
    if (id === opened) return;
    if (opened) started.get(opened).close?.();
    opened = id;
    for (const tab of tabs) {
      const isOpen = tab.getAttribute("aria-controls") === id;
      tab.setAttribute("aria-selected", isOpen);
      tab.tabIndex = isOpen ? 0 : -1;
      if (isOpen && focus) tab.focus();
      byId(tab.getAttribute("aria-controls")).hidden = !isOpen;
    }
    started.get(id).open?.();
  };

  const go = (tab, options) => {
    const id = tab.getAttribute("aria-controls");
    history.replaceState(null, "", `#${id}`);
    open(id, options);
  };
  for (const tab of tabs) tab.addEventListener("click", () => go(tab));
  tabs[0].parentElement.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -tabs.length, End: tabs.length }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = tabs.indexOf(document.activeElement);
    const next = Math.abs(step) === 1 ? (at + step + tabs.length) % tabs.length : step < 0 ? 0 : tabs.length - 1;
    go(tabs[next], { focus: true });
  });
  addEventListener("hashchange", () => open(location.hash.slice(1)));
  // Its address names no panel, and would open the first.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    byId(opened).focus();
  });
  open(location.hash.slice(1));
}

function startKey() {
  const form = byId("key");
  const field = byId("key-text");
  const said = byId("key-said");
  let before = null;
  server.addEventListener("key", ({ detail: { refused } }) => {
    // What the user was at.
    if (form.hidden) before = document.activeElement;
    form.hidden = false;
    said.textContent = refused ? "The server does not take the key that this tab had." : "";
    field.focus();
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    said.textContent = "";
    if (await server.giveKey(field.value.trim())) {
      const panel = document.querySelector("[role=tabpanel]:not([hidden])");
      showOrHide(form, false, before?.matches("body, :disabled") ? panel : before ?? panel);
      field.value = "";
    } else {
      said.textContent = "The server does not take this key.";
      field.select();
    }
  });
}

function startAway() {
  const notice = byId("away");
  server.addEventListener("away", () => {
    notice.textContent = "The server does not answer. The page goes on by itself when it is back.";
  });
  server.addEventListener("back", () => (notice.textContent = ""));
}

function showServed() {
  const { model, versions } = server.info;
  byId("served").textContent = `${model.name} on ${model.device}, ${model.dim} numbers a vector`;
  byId("served").title = `Packlight ${versions.packlight}, torch ${versions.torch}`;
}

function showProblem(error) {
  byId("away").textContent = `The server did not say what it serves: ${error.message}.`;
}
