// The last packs of everybody as bars: sizes alone. One canvas a pack, drawn when it comes and when the scale changes.

import { count, milliseconds, number } from "./words.js";

const MOST = 40;
const BAR_HEIGHT = 18;
const HATCH = 6;

export class PackBars {
  #list;
  #title;
  #bars = new Map();
  #order = [];
  #wide = 0;

  constructor(list, title) {
    this.#list = list;
    this.#title = title;
  }

  // Packs of a line of /stats, the oldest first. Those that are there already are left alone.
  add(packs) {
    const fresh = packs.filter(({ id }) => !this.#bars.has(id)).slice(-MOST);
    if (!fresh.length) return;
    for (const pack of fresh) {
      const bar = made(pack);
      this.#bars.set(pack.id, bar);
      this.#order.push(pack.id);
      this.#list.prepend(bar.element);
    }
    for (const id of this.#order.splice(0, Math.max(0, this.#order.length - MOST))) {
      this.#bars.get(id).element.remove();
      this.#bars.delete(id);
    }
    const widest = Math.max(...[...this.#bars.values()].map(({ pack }) => pack.computed_tokens));
    const wide = niceAbove(widest);
    if (wide !== this.#wide) {
      this.#wide = wide;
      this.#title.textContent = `The full width is ${count(wide, "token")}.`;
      this.draw();
    } else for (const { id } of fresh) this.#drawBar(this.#bars.get(id));
  }

  // All of them again: colours or widths changed.
  draw() {
    for (const bar of this.#bars.values()) this.#drawBar(bar);
  }

  #drawBar({ canvas, pack }) {
    const style = getComputedStyle(this.#list);
    const colours = Object.fromEntries(["image", "image-2", "text", "text-2", "empty", "soft"].map((name) => [name, style.getPropertyValue(`--${name}`)]));
    const ratio = devicePixelRatio || 1;
    const room = canvas.parentElement.clientWidth;
    canvas.width = Math.max(1, Math.round((room * pack.computed_tokens * ratio) / this.#wide));
    canvas.height = BAR_HEIGHT * ratio;
    canvas.style.width = `${canvas.width / ratio}px`;
    canvas.style.height = `${BAR_HEIGHT}px`;
    const pen = canvas.getContext("2d");
    const scale = canvas.width / pack.computed_tokens;
    let at = 0;
    const fill = (tokens, colour) => {
      pen.fillStyle = colour;
      pen.fillRect(at * scale, 0, tokens * scale, canvas.height);
      at += tokens;
    };
    // Neighbours differ in tone, and the segments of one image do not.
    pack.images.forEach((lengths, place) => fill(lengths.reduce((sum, length) => sum + length, 0), colours[place % 2 ? "image-2" : "image"]));
    pack.texts.forEach((tokens, place) => fill(tokens, colours[place % 2 ? "text-2" : "text"]));
    if (at < pack.tokens) fill(pack.tokens - at, colours.soft);
    hatch(pen, at * scale, canvas, colours, ratio);
  }
}

function hatch(pen, x, { width, height }, colours, ratio) {
  if (width - x < 0.5) return;
  pen.save();
  pen.beginPath();
  pen.rect(x, 0, width - x, height);
  pen.clip();
  pen.fillStyle = colours.empty;
  pen.fillRect(x, 0, width - x, height);
  pen.strokeStyle = colours.soft;
  pen.lineWidth = 1.5 * ratio;
  pen.beginPath();
  for (let at = x - height; at < width; at += HATCH * ratio) {
    pen.moveTo(at, height);
    pen.lineTo(at + height, 0);
  }
  pen.stroke();
  pen.restore();
}

function made(pack) {
  const element = document.createElement("li");
  const when = document.createElement("time");
  const room = document.createElement("div");
  const canvas = document.createElement("canvas");
  const words = document.createElement("span");
  const ended = new Date(pack.ended_at * 1000);
  when.dateTime = ended.toISOString();
  when.textContent = ended.toLocaleTimeString("en", { hourCycle: "h23" });
  // The words beside it say the same.
  canvas.setAttribute("aria-hidden", "true");
  words.className = "words";
  words.textContent = wordsOf(pack);
  room.className = "bar";
  room.append(canvas);
  element.dataset.pack = pack.id;
  element.append(when, room, words);
  return { element, canvas, pack };
}

function wordsOf({ images, texts, left_out: leftOut, tokens, computed_tokens: computed, forward_ms: forwardMs }) {
  const held = [
    ...(images.length ? [count(images.length, "image")] : []),
    ...(texts.length ? [count(texts.length, "text")] : []),
    ...(leftOut ? [`${number(leftOut)} more`] : []),
  ];
  const filler = computed > tokens ? ` + ${number(computed - tokens)} filler` : "";
  return `${held.join(", ")} · ${count(tokens, "token")}${filler} · ${milliseconds(forwardMs)}`;
}

// 1, 2 or 5 times a power of ten, or a half of a thousand and so on: few changes of the scale.
function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(1, value)));
  return [1, 1.5, 2, 3, 5, 7.5, 10].map((step) => step * power).find((nice) => nice >= value);
}
