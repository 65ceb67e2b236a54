// The user's own pictures in the packs that ran them, above the rectangle that padding would have computed.

import { lengthsOf, packsThatRan, sum, totalsOf } from "./packs-match.js";
import { count, named, number } from "./words.js";

const COLOURS = 6;
const MOST_PACKS = 12;
// The widest line of packs, in widths of the padded rectangle.
const WIDEST_LINE = 4;
const MOST_ROWS = 24;
// A narrower segment shows its colour alone.
const NARROWEST_THUMB = 12;
const THUMB_HEIGHT = 56;
// The more pictures, the lower their rows. A pack is as high as a row: equal areas are equal work.
const HEIGHTS = [[5, "high"], [9, "middle"], [14, "low"], [Infinity, "lowest"]];
const FLIGHT = { duration: 700, easing: "cubic-bezier(0.2, 0.8, 0.2, 1)", fill: "backwards" };
const STAGGER_MS = 70;
// Where padding would have cost less than this share, the panel says what makes a difference.
const SMALL_SAVING = 0.1;

export class PacksMine {
  #root;
  #drawn = "";
  #flown = "";

  constructor(root) {
    this.#root = root;
    root.querySelector("#packs-replay").addEventListener("click", () => this.#fly());
  }

  // `packs`: the known lines of /stats, by id. `waiting`: whether more of them may come. `hasNative`: whether the model has
  // that strategy.
  show(embedded, packs, { waiting, hasNative }) {
    // A proxy may keep the header that names the pack to itself.
    const pictures = embedded.filter(({ result }) => result.packId);
    const ran = packsThatRan(pictures, packs);
    const look = JSON.stringify([pictures.map(({ id, state }) => [id, state]), ran.map(({ id, known }) => [id, known]), waiting, this.#root.clientWidth]);
    if (look === this.#drawn) return;
    this.#drawn = look;
    this.#find("packs-figure").hidden = ran.length === 0;
    const sentence = ran.length ? sentenceOf(pictures, ran) : "Embed pictures in the panel Try, and see here how the server packed them.";
    if (this.#find("packs-sentence").textContent !== sentence) this.#find("packs-sentence").textContent = sentence;
    this.#find("packs-hint").textContent = ran.length ? hintOf(pictures, ran, { waiting, hasNative }) : "";
    if (!ran.length) return;
    this.#draw(pictures, ran);
    // They fly once, as soon as all is known that will be.
    const flown = ran.map(({ id }) => id).join();
    if (flown !== this.#flown && (!waiting || ran.every(({ known }) => known))) {
      this.#flown = flown;
      this.#fly();
    }
  }

  #find(id) {
    return this.#root.querySelector(`#${id}`);
  }

  #draw(pictures, ran) {
    const totals = totalsOf(pictures);
    const shown = ran.slice(0, MOST_PACKS);
    const line = Math.min(sum(shown.map(computedOf)), WIDEST_LINE * totals.cap);
    const wide = Math.max(totals.cap, line, ...shown.map(computedOf));
    // A little less than all: rounded widths must not break a line that is full.
    const share = (tokens) => `${(99.99 * tokens) / wide}%`;
    const room = this.#find("packs-shelves").clientWidth;
    const colours = new Map(pictures.map((picture, place) => [picture, place % COLOURS]));
    const drawing = { share, room, wide, colours };
    this.#find("packs-figure").dataset.rows = HEIGHTS.find(([most]) => pictures.length <= most)[1];

    this.#find("packs-shelves").replaceChildren(...shown.map((pack) => shelf(pack, drawing)));
    this.#find("packs-more").textContent = more(ran.length - shown.length, "pack");
    const rows = pictures.slice(0, MOST_ROWS).map((picture) => row(picture, totals, drawing));
    this.#find("packs-rows").replaceChildren(...rows);
    this.#find("packs-more-rows").textContent = more(pictures.length - rows.length, "row");
    this.#find("packs-padded-title").textContent =
      totals.paddedToCap > totals.padded
        ? `Padded to the longest: ${number(totals.padded)} tokens. To the budget: ${number(totals.paddedToCap)}`
        : `Padded to the longest: ${number(totals.padded)} tokens`;
    this.#find("packs-packed-title").textContent = `Packed: ${count(sum(ran.map(computedOf)), "token")} in ${count(ran.length, "pack")}`;
    this.#find("packs-numbers").replaceChildren(...ran.flatMap((pack, place) => numbersOf(pack, place, colours)));
  }

  // Every picture leaves its padded row and flies into its segment.
  #fly() {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const rows = new Map([...this.#root.querySelectorAll("#packs-rows .slot[data-picture]")].map((cell) => [cell.dataset.picture, cell]));
    const flights = [...this.#root.querySelectorAll("#packs-shelves .slot[data-picture]")].map((slot) => {
      const from = rows.get(slot.dataset.picture)?.getBoundingClientRect();
      return { slot, from, to: slot.getBoundingClientRect() };
    });
    for (const [place, { slot, from, to }] of flights.entries()) {
      if (!from || !to.width) continue;
      const start = `translate(${from.left - to.left}px, ${from.top - to.top}px) scale(${from.width / to.width}, ${from.height / to.height})`;
      slot.animate([{ transform: start, opacity: 0.6 }, { transform: "none", opacity: 1 }], { ...FLIGHT, delay: place * STAGGER_MS });
    }
  }
}

const computedOf = ({ computed, slots }) => computed ?? sum(slots.map(({ tokens }) => tokens));

function sentenceOf(pictures, ran) {
  const { tokens, padded } = totalsOf(pictures);
  const where = ran.length === 1 ? "in one pack" : `in ${number(ran.length)} packs`;
  const these = pictures.length === 1 ? "This picture" : `These ${number(pictures.length)} pictures`;
  const first = `${these}: ${count(tokens, "token")} ${where}.`;
  if (pictures.length === 1) return `${first} One picture alone needs no padding: embed several.`;
  if (padded === tokens) return `${first} All are as long as the longest, so padding would have added nothing.`;
  return `${first} Padded to the longest they would have taken ${number(padded)}.`;
}

function hintOf(pictures, ran, { waiting, hasNative }) {
  const { tokens, padded } = totalsOf(pictures);
  const said = [];
  const unknown = ran.filter(({ known }) => !known).length;
  const known = ran.filter((pack) => pack.known);
  if (known.length) {
    const filler = sum(known.map(({ computed, slots }) => computed - sum(slots.map((slot) => slot.tokens))));
    said.push(filler ? `The device computed ${count(filler, "token")} of filler beside them.` : "The device computed no filler.");
    const others = sum(known.map(({ slots }) => slots.filter(({ picture }) => !picture).length));
    if (others) said.push(`The gray segments are other people's: ${count(others, "segment")}.`);
  }
  if (unknown && !waiting) said.push(`What else was in ${unknown === ran.length ? "them" : count(unknown, "pack")} is not known.`);
  const { strategy } = pictures[0].result;
  if (hasNative && strategy !== "native" && pictures.length > 1 && padded - tokens < SMALL_SAVING * padded) {
    said.push(`With ${strategy} these pictures take nearly the same. Choose native, and they keep their own sizes, which differ.`);
  }
  return said.join(" ");
}

const more = (left, what) => (left > 0 ? `and ${count(left, what)} more` : "");

function shelf({ computed, slots }, drawing) {
  const element = made("div", "shelf");
  const total = computedOf({ computed, slots });
  element.style.width = drawing.share(total);
  element.dataset.tokens = total;
  element.append(...slots.map((slot) => slotOf(slot, total, drawing)));
  const filler = total - sum(slots.map(({ tokens }) => tokens));
  if (filler > 0) element.append(emptyOf("empty", filler, total, "filler"));
  return element;
}

function row(picture, { longest, cap }, drawing) {
  const element = made("div", "row");
  const { tokens } = picture.result;
  element.style.width = drawing.share(cap);
  element.append(slotOf({ picture, tokens, lengths: lengthsOf(picture) }, cap, drawing));
  if (longest > tokens) element.append(emptyOf("empty", longest - tokens, cap, "padding to the longest"));
  if (cap > longest) element.append(emptyOf("empty beyond", cap - longest, cap, "padding to the budget"));
  return element;
}

// A part of a pack or a row, which is `total` tokens wide.
function slotOf({ picture, kind, tokens, lengths }, total, { room, wide, colours }) {
  const element = made("span", `slot ${picture ? `colour-${colours.get(picture)}` : kind === "text" ? "other text" : "other"}`);
  const width = (room * tokens) / wide;
  const name = picture?.name ?? (kind === "rest" ? "others" : `somebody's ${kind}`);
  give(element, tokens, total, name);
  if (picture) element.dataset.picture = picture.id;
  if (picture?.thumb && width >= NARROWEST_THUMB) element.append(thumbOf(picture.thumb, width));
  // A number that does not fit is in the table.
  const text = number(tokens);
  if (width > 9 * text.length + 8) element.append(Object.assign(made("span", "label"), { textContent: text }));
  let at = 0;
  for (const length of lengths.slice(0, -1)) {
    at += length;
    const line = made("span", "cut");
    line.style.left = `${(100 * at) / tokens}%`;
    element.append(line);
  }
  return element;
}

function emptyOf(className, tokens, total, name) {
  const element = made("span", className);
  give(element, tokens, total, name);
  return element;
}

function give(element, tokens, total, name) {
  element.style.width = `${(100 * tokens) / total}%`;
  element.dataset.tokens = tokens;
  element.title = `${named(name)}: ${count(tokens, "token")}`;
}

// A small copy of the middle of a thumbnail, which covers its box.
function thumbOf(thumb, width) {
  const canvas = document.createElement("canvas");
  const ratio = Math.min(2, devicePixelRatio || 1);
  canvas.width = Math.max(1, Math.round(Math.min(width, 480) * ratio));
  canvas.height = Math.round(THUMB_HEIGHT * ratio);
  const scale = Math.max(canvas.width / thumb.width, canvas.height / thumb.height);
  const [wide, high] = [thumb.width * scale, thumb.height * scale];
  canvas.getContext("2d").drawImage(thumb, (canvas.width - wide) / 2, (canvas.height - high) / 2, wide, high);
  return canvas;
}

function numbersOf({ slots, known, computed }, place, colours) {
  const ours = slots.filter(({ picture }) => picture);
  const others = slots.filter(({ picture }) => !picture);
  const lines = ours.map(({ picture, tokens }) => [`${place + 1}`, picture.name, number(tokens), colours.get(picture)]);
  if (others.length) lines.push([`${place + 1}`, `${count(others.length, "segment")} of others`, number(sum(others.map(({ tokens }) => tokens)))]);
  if (known) lines.push([`${place + 1}`, "filler", number(computed - sum(slots.map(({ tokens }) => tokens)))]);
  return lines.map(([pack, name, tokens, colour]) => {
    const line = document.createElement("tr");
    for (const text of [pack, name, tokens]) line.append(Object.assign(document.createElement("td"), { textContent: text }));
    if (colour !== undefined) line.children[1].className = `named colour-${colour}`;
    return line;
  });
}

function made(tag, className) {
  return Object.assign(document.createElement(tag), { className });
}
