// Fills the page of `packlight embed --html` from the data that stands in it. The file is opened from a disk: there is no
// server to ask. Names of files come in as text and stay text.

import { draw } from "./grid.js";
import { count, grid, named, number, size } from "./words.js";

const report = JSON.parse(document.getElementById("report").textContent);
const { model, pictures } = report;
const within = (element, part) => element.querySelector(part);
const byId = (id) => document.getElementById(id);

function made(name, text = "", className = "") {
  const element = document.createElement(name);
  element.textContent = text;
  if (className) element.className = className;
  return element;
}

const addressOf = (picture) => `data:image/webp;base64,${picture.thumb}`;

// The head: what it was made with, how much there is.
function showHead() {
  const { images, failed, tokens, packs } = report.count;
  byId("model").textContent = `${model.name} · ${model.dim} numbers a vector · ${model.dtype} · fingerprint ${model.fingerprint}`;
  byId("title").textContent = images || failed || !report.texts.length ? count(images, "picture") : count(report.texts.length, "text");
  if (!images) return;
  byId("lead").textContent =
    `${count(tokens, "token")} in ${count(packs, "pack")}: ${number(Math.round(tokens / images))} a picture, ` +
    `at most ${number(model.token_cap)} with strategy ${model.strategy}.`;
}

// The bars: what ran, beside what two ways of padding would have computed for the same packs.
function showLayouts() {
  const { tokens, computed_tokens: packed, longest_tokens: longest, cap_tokens: cap } = report.count;
  if (!packed) return;
  const layouts = [["Packed, as it ran", packed], ["Each padded to the longest of its pack", longest]];
  if (cap !== null) layouts.push(["Each padded to its budget", cap]);
  const most = Math.max(...layouts.map(([, computed]) => computed));
  byId("layouts").hidden = false;
  byId("bars").replaceChildren(...layouts.map(([name, computed]) => bar(name, computed, { tokens, packed, most })));
  const waste = `${((100 * (packed - tokens)) / packed).toFixed(1)}%`;
  byId("packs").textContent = `Padding waste of the packs: ${waste}. Hatched is filler: it is computed, and says nothing.`;
}

function bar(name, computed, { tokens, packed, most }) {
  const row = made("li");
  const drawn = made("div", "", "bar");
  for (const part of [tokens, computed - tokens]) {
    const piece = made("i");
    piece.style.width = `${(100 * part) / most}%`;
    piece.hidden = part <= 0;
    drawn.append(piece);
  }
  const times = computed === packed ? "" : `, ${(computed / packed).toFixed(2)} times as many`;
  row.append(made("span", name), made("span", `${count(computed, "token")}${times}`, "amount"), drawn);
  return row;
}

function showFailed() {
  if (!report.failed.length) return;
  const root = byId("failed");
  root.hidden = false;
  within(root, "h2").textContent = `${count(report.count.failed, "file has", "files have")} no vector`;
  const rows = report.failed.map(({ name, reason }) => {
    const row = made("li", `${named(name)}: `);
    row.append(made("span", reason, "reason"));
    return row;
  });
  within(root, "ul").replaceChildren(...rows);
  if (report.failed_left_out) within(root, ".hint").textContent = `And ${number(report.failed_left_out)} more.`;
}

function showTexts() {
  if (!report.texts.length) return;
  byId("texts").hidden = false;
  const rows = report.texts.map(({ text, tokens, near }) => {
    const row = made("li");
    const strip = made("ol", "", "near");
    fillStrip(strip, near);
    row.append(made("p", text, "name"), made("p", count(tokens, "token"), "hint"), strip);
    return row;
  });
  within(byId("texts"), "ul").replaceChildren(...rows);
}

// Neighbours, nearest first. One that is not on the page has its name alone.
function fillStrip(strip, near) {
  strip.replaceChildren(...near.map(([place, cosine]) => {
    const item = made("li");
    const other = pictures[place];
    const link = other ? made("a") : made("span", "", "off");
    link.title = other ? other.name : place;
    if (other) {
      link.href = `#picture-${place}`;
      const image = made("img");
      image.src = addressOf(other);
      image.alt = other.name;
      link.append(image);
    } else {
      link.append(made("span", place, "blank"));
    }
    link.append(made("span", cosine.toFixed(3)));
    item.append(link);
    return item;
  }));
}

function cardOf(picture, place) {
  const card = byId("card").content.firstElementChild.cloneNode(true);
  card.id = `picture-${place}`;
  const name = within(card, ".name");
  name.textContent = picture.name;
  name.title = picture.title;
  const patches = picture.segments > 1 ? `${picture.segments} × ${grid(picture.grid)}` : grid(picture.grid);
  within(card, ".grid").textContent = `${patches} = ${count(picture.tokens, "token")}\n${size(picture.size)} → ${size(picture.resized)}`;
  within(card, "canvas").setAttribute("aria-label", `${picture.name} as ${patches} patches`);
  within(card, ".near-title").hidden = !picture.near.length;
  within(card, ".near").setAttribute("aria-label", `Nearest to ${picture.name}`);
  return card;
}

// Pictures are decoded and drawn when they come near the window: hundreds would take long, and much memory.
class Drawing {
  #images = new Map();
  #visible = new Set();
  #cards;

  constructor(cards) {
    this.#cards = cards;
    const seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        this.#visible[isIntersecting ? "add" : "delete"](target);
        if (isIntersecting) this.#draw(target);
      }
    }, { rootMargin: "400px" });
    for (const card of cards) seen.observe(card);
    // Paper shows all of them.
    addEventListener("beforeprint", () => cards.forEach((card, place) => this.#begin(card, place)));
    addEventListener("beforeprint", () => cards.forEach((card, place) => this.#paint(card, place)));
    for (const event of ["resize", "themechange"]) {
      addEventListener(event, () => this.#visible.forEach((card) => this.#draw(card)));
    }
  }

  async #draw(card) {
    const place = this.#cards.indexOf(card);
    await this.#begin(card, place).decode();
    this.#paint(card, place);
  }

  #paint(card, place) {
    const image = this.#images.get(place);
    if (!image.complete) return;
    const { clientWidth, clientHeight } = within(card, ".show");
    draw(within(card, "canvas"), image, pictures[place], { width: clientWidth - 16, height: clientHeight - 16 });
  }

  // The picture's image, which may not be decoded yet.
  #begin(card, place) {
    const strip = within(card, ".near");
    if (!strip.childElementCount) fillStrip(strip, pictures[place].near);
    if (!this.#images.has(place)) {
      const image = new Image();
      image.src = addressOf(pictures[place]);
      this.#images.set(place, image);
    }
    return this.#images.get(place);
  }
}

// Cards are moved in the document, so that the keyboard goes through them as they are seen.
const ORDERS = {
  given: (one, other) => one - other,
  name: (one, other) => pictures[one].name.localeCompare(pictures[other].name, undefined, { numeric: true }) || one - other,
  tokens: (one, other) => pictures[other].tokens - pictures[one].tokens || one - other,
};

function showPictures() {
  if (!pictures.length) return;
  byId("pictures").hidden = false;
  if (report.left_out) {
    byId("left-out").textContent =
      `The page shows the first ${number(pictures.length)}. ${count(report.left_out, "more picture was", "more pictures were")} ` +
      "embedded, and can be neighbours here by name.";
  }
  const cards = pictures.map(cardOf);
  const root = byId("gallery");
  root.replaceChildren(...cards);
  byId("pictures").addEventListener("change", ({ target }) => {
    const places = [...cards.keys()].sort(ORDERS[target.value]);
    root.replaceChildren(...places.map((place) => cards[place]));
  });
  new Drawing(cards);
}

showHead();
showLayouts();
showFailed();
showTexts();
showPictures();
