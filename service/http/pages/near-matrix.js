// The matrix: the cosine of every pair, shaded, with thumbnails along both sides. Read by pointer or by arrow keys.

import { tile } from "./near-tiles.js";
import { cosineOf, named } from "./words.js";

const CELL = { least: 12, most: 50, numbers: 36, gaps: 18 };
const HEAD_LEAST = 32;
// Some browsers draw no larger canvas.
const MOST_PIXELS = 16e6;
const STEPS = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };

export class Matrix {
  #find;
  #similarity;
  #choose;
  #order = [];
  #cell = 0;
  #head = 0;
  #at = null;
  // What the canvas shows: it is drawn again if any of this has changed.
  #drawn = [];

  // root: has the parts that index.html gives it.
  constructor(root, similarity, choose) {
    this.#find = (id) => root.querySelector(`#near-matrix-${id}`);
    this.#similarity = similarity;
    this.#choose = choose;
    const canvas = this.#find("canvas");
    canvas.addEventListener("pointermove", (event) => this.#goTo(this.#placeOf(event)));
    canvas.addEventListener("click", (event) => {
      this.#goTo(this.#placeOf(event));
      this.#take();
    });
    this.#find("box").addEventListener("keydown", (event) => this.#move(event));
    this.#find("box").addEventListener("focus", () => this.#goTo(this.#at ?? { row: 0, column: 0 }));
  }

  draw(chosen) {
    const { pictures } = this.#similarity;
    const count = pictures.length;
    const canvas = this.#find("canvas");
    const room = this.#find("box").parentElement.clientWidth;
    const look = [this.#similarity.results, room, window.devicePixelRatio, getComputedStyle(canvas).getPropertyValue("--accent")];
    if (look.every((part, i) => part === this.#drawn[i])) return this.#markRow(chosen);
    this.#drawn = look;
    this.#order = this.#similarity.order;
    if (this.#at && Math.max(this.#at.row, this.#at.column) >= count) this.#at = null;
    const fitting = Math.floor((room - HEAD_LEAST) / count);
    this.#cell = Math.min(CELL.most, Math.max(CELL.least, Math.min(fitting, Math.floor(room / (count + 1)))));
    this.#head = Math.max(HEAD_LEAST, this.#cell);
    const side = this.#head + count * this.#cell;
    const ratio = Math.min(window.devicePixelRatio || 1, Math.sqrt(MOST_PIXELS) / side);
    Object.assign(canvas, { width: Math.round(side * ratio), height: Math.round(side * ratio) });
    Object.assign(canvas.style, { width: `${side}px`, height: `${side}px` });
    const pen = canvas.getContext("2d");
    pen.scale(canvas.width / side, canvas.height / side);
    const shades = this.#shades(canvas);
    this.#drawCells(pen, count, shades);
    this.#drawHeads(pen);
    this.#find("low").textContent = cosineOf(shades.low);
    this.#find("high").textContent = cosineOf(shades.high);
    this.#markRow(chosen);
    this.#mark();
  }

  // The lowest cosine of a pair is as the paper, the highest as the accent.
  #shades(element) {
    const style = getComputedStyle(element);
    const [paper, ink, accent, empty, onAccent] = ["--card", "--ink", "--accent", "--empty", "--on-accent"]
      .map((name) => channelsOf(style.getPropertyValue(name)));
    const { cosines, pictures: { length: count } } = this.#similarity;
    let [low, high] = [Infinity, -Infinity];
    cosines.forEach((value, at) => {
      if (Math.floor(at / count) === at % count) return;
      low = Math.min(low, value);
      high = Math.max(high, value);
    });
    const shade = (value) => {
      const part = high > low ? (value - low) / (high - low) : 0.5;
      return paper.map((channel, i) => Math.round(channel + part * (accent[i] - channel)));
    };
    return { low, high, shade, empty, inks: [ink, onAccent] };
  }

  #drawCells(pen, count, { shade, empty, inks }) {
    const shaded = new ImageData(count, count);
    const { data } = shaded;
    this.#order.forEach((i, row) => this.#order.forEach((j, column) => {
      const at = 4 * (row * count + column);
      [data[at], data[at + 1], data[at + 2]] = i === j ? empty : shade(this.#similarity.cosine(i, j));
      data[at + 3] = 255;
    }));
    const small = new OffscreenCanvas(count, count);
    small.getContext("2d").putImageData(shaded, 0, 0);
    const [head, cell] = [this.#head, this.#cell];
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, head, head, count * cell, count * cell);
    pen.imageSmoothingEnabled = true;
    if (cell >= CELL.gaps) {
      for (let i = 0; i <= count; i++) {
        pen.clearRect(head + i * cell - 0.5, head, 1, count * cell);
        pen.clearRect(head, head + i * cell - 0.5, count * cell, 1);
      }
    }
    if (cell < CELL.numbers) return;
    Object.assign(pen, { textAlign: "center", textBaseline: "middle", font: `${Math.min(14, cell / 3.2)}px system-ui, sans-serif` });
    this.#order.forEach((i, row) => this.#order.forEach((j, column) => {
      if (i === j) return;
      const at = 4 * (row * count + column);
      pen.fillStyle = `rgb(${clearest(inks, data.subarray(at, at + 3))})`;
      pen.fillText(this.#similarity.cosine(i, j).toFixed(2), head + (column + 0.5) * cell, head + (row + 0.5) * cell);
    }));
  }

  #drawHeads(pen) {
    const [head, cell] = [this.#head, this.#cell];
    pen.imageSmoothingQuality = "high";
    this.#order.forEach((i, at) => {
      const copy = tile(this.#similarity.pictures[i]);
      const along = head + at * cell;
      for (const [x, y, width, height] of [[0, along, head, cell], [along, 0, cell, head]]) {
        const scale = Math.min((width - 4) / copy.width, (height - 4) / copy.height);
        const [wide, tall] = [copy.width * scale, copy.height * scale];
        pen.drawImage(copy, x + (width - wide) / 2, y + (height - tall) / 2, wide, tall);
      }
    });
  }

  // The row of the chosen picture has a frame.
  #markRow(chosen) {
    const row = this.#order.findIndex((i) => this.#similarity.pictures[i] === chosen);
    const frame = this.#find("row");
    frame.hidden = row < 0;
    put(frame, 0, this.#head + row * this.#cell, this.#head + this.#order.length * this.#cell, this.#cell);
  }

  #mark() {
    const frame = this.#find("cell");
    frame.hidden = this.#at === null;
    if (!this.#at) return this.#say("");
    const { row, column } = this.#at;
    put(frame, this.#head + column * this.#cell, this.#head + row * this.#cell, this.#cell, this.#cell);
    const { pictures } = this.#similarity;
    const [i, j] = [this.#order[row], this.#order[column]];
    this.#say(i === j ? pictures[i].name : `${named(pictures[i].name)} and ${named(pictures[j].name)}: ${cosineOf(this.#similarity.cosine(i, j))}`);
  }

  #say(text) {
    const reading = this.#find("reading");
    if (reading.textContent !== text) reading.textContent = text;
  }

  // A place on a thumbnail is the picture's own.
  #placeOf({ offsetX, offsetY }) {
    const [column, row] = [offsetX, offsetY].map((along) => Math.floor((along - this.#head) / this.#cell));
    const last = this.#order.length - 1;
    if (Math.max(row, column) < 0 || Math.max(row, column) > last) return null;
    return { row: row < 0 ? column : row, column: column < 0 ? row : column };
  }

  #goTo(place) {
    if (!place || !this.#order.length) return;
    this.#at = place;
    this.#mark();
  }

  #take() {
    if (this.#at) this.#choose(this.#similarity.pictures[this.#order[this.#at.row]]);
  }

  #move(event) {
    const { key } = event;
    const last = this.#order.length - 1;
    const { row, column } = this.#at ?? { row: 0, column: 0 };
    if (key === "Enter" || key === " ") this.#take();
    else if (key === "Home" || key === "End") this.#goTo({ row, column: key === "Home" ? 0 : last });
    else if (STEPS[key]) {
      const [down, right] = STEPS[key];
      this.#goTo({ row: clamp(row + down, last), column: clamp(column + right, last) });
      this.#find("cell").scrollIntoView({ block: "nearest", inline: "nearest" });
    } else return;
    event.preventDefault();
  }
}

const clamp = (value, last) => Math.max(0, Math.min(last, value));

function put(element, left, top, width, height) {
  Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
}

// [red, green, blue] of "#b93c0a".
function channelsOf(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.trim().slice(at, at + 2), 16));
}

// The ink that stands out most on a ground.
function clearest(inks, ground) {
  const light = luminance(ground);
  const contrast = (ink) => {
    const own = luminance(ink);
    return (Math.max(own, light) + 0.05) / (Math.min(own, light) + 0.05);
  };
  return inks.reduce((best, ink) => (contrast(ink) > contrast(best) ? ink : best));
}

function luminance(channels) {
  const [red, green, blue] = Array.from(channels, (channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
