// The cards: each picture with its grid, what it costs, and what became of it.

import { draw } from "./grid.js";
import { optionOf } from "./plans.js";
import { count, grid, milliseconds, number, size } from "./words.js";

const NUMBERS_SHOWN = 3;

export class Gallery {
  #root;
  #pictures;
  #onChoose;
  #cards = new Map();
  #visible = new Set();
  #seen;
  #frame = 0;

  // onChoose: called when somebody clicks on a picture.
  constructor(root, pictures, onChoose) {
    this.#root = root;
    this.#pictures = pictures;
    this.#onChoose = onChoose;
    // Only what can be seen is drawn.
    this.#seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) this.#visible[isIntersecting ? "add" : "delete"](target);
      this.#later();
    }, { rootMargin: "200px" });
    pictures.addEventListener("change", () => this.#later());
    addEventListener("resize", () => this.draw());
    addEventListener("themechange", () => this.draw());
    // Paper shows all of them.
    addEventListener("beforeprint", () => {
      for (const { element } of this.#cards.values()) this.#visible.add(element);
      this.#update();
    });
  }

  // Everything again: colours or sizes changed.
  draw() {
    for (const card of this.#cards.values()) card.drawn = "";
    this.#later();
  }

  #later() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#update());
  }

  #update() {
    const { list } = this.#pictures;
    for (const [picture, { element }] of this.#cards) {
      if (list.includes(picture)) continue;
      this.#seen.unobserve(element);
      this.#visible.delete(element);
      element.remove();
      this.#cards.delete(picture);
    }
    const { children } = this.#root;
    for (const [place, picture] of list.entries()) {
      if (!this.#cards.has(picture)) this.#cards.set(picture, this.#made(picture));
      const card = this.#cards.get(picture);
      // One that was brought back stands where it stood.
      if (children[place] !== card.element) this.#root.insertBefore(card.element, children[place] ?? null);
      this.#show(picture, card);
    }
  }

  #made(picture) {
    const element = document.getElementById("card").content.firstElementChild.cloneNode(true);
    const parts = Object.fromEntries(
      ["show", "plain", "remove", "name", "grid", "fate", "vector"].map((name) => [name, element.querySelector(`.${name}`)]),
    );
    parts.name.textContent = picture.name;
    parts.name.title = picture.name;
    parts.show.setAttribute("aria-label", `${picture.name}: compare strategies`);
    parts.remove.setAttribute("aria-label", `Remove ${picture.name}`);
    parts.remove.addEventListener("click", () => {
      // Else the keyboard would begin again at the top of the page.
      const next = element.nextElementSibling ?? element.previousElementSibling;
      (next?.querySelector(".remove") ?? document.getElementById("choose")).focus();
      this.#pictures.remove(picture);
    });
    parts.show.addEventListener("click", () => {
      this.#pictures.select(picture);
      this.#onChoose();
    });
    this.#seen.observe(element);
    return { element, canvas: element.querySelector("canvas"), ...parts, said: "", drawn: "" };
  }

  #show(picture, card) {
    const option = optionOf(picture);
    const isSelected = this.#pictures.selected === picture;
    const state = `${picture.version} ${isSelected} ${this.#pictures.isCurrent(picture)}`;
    if (state !== card.said) {
      card.said = state;
      card.element.dataset.state = picture.state;
      card.element.dataset.work = picture.work;
      card.show.setAttribute("aria-pressed", isSelected);
      this.#say(picture, option, card);
    }
    if (!this.#visible.has(card.element)) return;
    const look = `${picture.state} ${JSON.stringify(option)}`;
    if (look === card.drawn) return;
    card.drawn = look;
    card.canvas.hidden = !picture.thumb && !option?.grid;
    const { clientWidth, clientHeight } = card.show;
    draw(card.canvas, picture.thumb, option, { width: clientWidth - 16, height: clientHeight - 16 });
  }

  #say(picture, option, card) {
    // Also of what is not drawn yet.
    card.canvas.setAttribute("aria-label", option?.grid ? `${picture.name} as ${grid(option.grid)} patches` : picture.name);
    card.plain.textContent = picture.state === "unshown" && !option?.grid ? suffixOf(picture.name) : "";
    put(card.grid, option ? costOf(picture, option) : "");
    put(card.fate, fateOf(picture));
    card.fate.dataset.failed = picture.failure !== "" || Boolean(picture.plan?.refusal);
    const { result } = picture;
    const isCurrent = this.#pictures.isCurrent(picture);
    card.vector.dataset.old = !isCurrent;
    put(card.vector, result ? vectorOf(result, isCurrent, option) : "");
    if (result) card.vector.title = Object.entries(result.stages).map(([stage, ms]) => `${stage} ${ms.toFixed(1)} ms`).join(", ");
  }
}

// An unchanged text is left alone: a screen reader would say it again.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function costOf(picture, option) {
  const patches = option.segments > 1 ? `${option.segments} × ${grid(option.grid)}` : grid(option.grid);
  return `${patches} = ${count(option.tokens, "token")}\n${size(picture.size)} → ${size(option.resized)}`;
}

function fateOf(picture) {
  if (picture.failure) return `Not embedded: ${picture.failure}.`;
  if (picture.note) return picture.note;
  if (picture.work === "embedding") return "Embedding…";
  if (picture.work === "waiting") return "Waiting…";
  if (picture.state === "reading") return "Reading…";
  if (picture.plan?.refusal) return `Cannot be taken so: ${picture.plan.refusal}.`;
  if (picture.state === "unshown" && !picture.result) {
    return "This browser cannot show the file: it is broken, too large, or of a format that only the server reads. Embed asks the server.";
  }
  return "";
}

function vectorOf(result, isCurrent, option) {
  const numbers = [...result.embedding.subarray(0, NUMBERS_SHOWN)].map((value) => value.toFixed(3)).join(", ");
  const line = `[${numbers}, … ${number(result.embedding.length)}]`;
  const cost = `${count(result.tokens, "token")}, ${grid(result.grid)}`;
  const asPlanned = option?.tokens === result.tokens && `${option.grid}` === `${result.grid}`;
  const before = `with ${result.strategy}${result.budget ? ` at ${number(result.budget)}` : ""}`;
  const note = !isCurrent ? before : asPlanned ? "as planned" : "";
  return `${["Embedded", note].filter(Boolean).join(" ")}: ${cost}, ${milliseconds(result.ms)}\n${line}`;
}

function suffixOf(name) {
  const at = name.lastIndexOf(".");
  return at > 0 ? name.slice(at + 1, at + 6).toUpperCase() : "?";
}
