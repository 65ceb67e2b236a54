// Rates, queue and latencies of the whole server: numbers, each with a line of the last half minute, and bars by stage.

import { milliseconds, number } from "./words.js";

const POINTS = 60;
const WIDTH = 120;
const HEIGHT = 28;
const SVG = "http://www.w3.org/2000/svg";

const STAGES = {
  receive: "the request's bytes", fetch: "pictures from URLs", decode: "to patches", tokenize: "texts to tokens",
  queue: "wait for a pack", pack: "arranging it", forward: "the model", respond: "writing the answer",
};

// Each: its name, its number, and that in words. A number is null while it is not known.
const FIGURES = [
  ["Images a second", ({ rates }) => rates?.images_per_s, (value) => value.toFixed(1)],
  ["Texts a second", ({ rates }) => rates?.texts_per_s, (value) => value.toFixed(1), ({ rates }) => rates?.texts_per_s > 0],
  ["Tokens a second", ({ rates }) => rates?.tokens_per_s, (value) => number(Math.round(value))],
  ["Padding waste", ({ rates }) => rates?.padding_waste, (value) => `${(100 * value).toFixed(1)}%`],
  ["Tokens in the queue", ({ queue }) => queue.tokens, (value, { queue }) => `${number(value)} of ${number(queue.max_tokens)}`],
];

export class PackFigures {
  #figures;
  #stages;
  #lines = new Map();

  constructor(figures, stages) {
    this.#stages = stages;
    this.#figures = FIGURES.map(([name, read, word, isWanted = () => true]) => {
      const figure = tile(name);
      figures.append(figure.element);
      return { ...figure, read, word, isWanted, values: [] };
    });
  }

  show(line) {
    for (const figure of this.#figures) {
      const value = figure.read(line) ?? null;
      figure.values = [...figure.values.slice(1 - POINTS), value ?? 0];
      if (figure.isWanted(line)) figure.element.hidden = false;
      put(figure.value, value === null ? "–" : figure.word(value, line));
      figure.spark.setAttribute("points", pointsOf(figure.values));
    }
    const ran = Object.entries(line.stages).filter(([, times]) => times);
    const longest = Math.max(1, ...ran.map(([, { p95_ms: p95 }]) => p95));
    for (const [name, times] of Object.entries(line.stages)) {
      if (!this.#lines.has(name) && times) this.#addStage(name);
      if (this.#lines.has(name)) showStage(this.#lines.get(name), times, longest);
    }
  }

  // The first line after a pause says nothing of the time between.
  forget() {
    for (const figure of this.#figures) figure.values = [];
  }

  #addStage(name) {
    const made = stage(name);
    this.#lines.set(name, made);
    const order = Object.keys(STAGES);
    const later = [...this.#lines.keys()].filter((other) => order.indexOf(other) > order.indexOf(name));
    const next = later.sort((one, other) => order.indexOf(one) - order.indexOf(other))[0];
    this.#stages.insertBefore(made.element, next ? this.#lines.get(next).element : null);
  }
}

function tile(name) {
  const element = document.createElement("div");
  const term = Object.assign(document.createElement("dt"), { textContent: name });
  const value = Object.assign(document.createElement("dd"), { textContent: "–" });
  const picture = document.createElementNS(SVG, "svg");
  const spark = document.createElementNS(SVG, "polyline");
  picture.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  picture.append(spark);
  const drawing = document.createElement("dd");
  drawing.setAttribute("aria-hidden", "true");
  drawing.append(picture);
  element.className = "figure";
  element.hidden = name === "Texts a second";
  element.append(term, value, drawing);
  return { element, value, spark };
}

function pointsOf(values) {
  const highest = Math.max(...values) || 1;
  const step = WIDTH / (POINTS - 1);
  const first = POINTS - values.length;
  return values.map((value, place) => `${((first + place) * step).toFixed(1)},${(HEIGHT - 1 - (value / highest) * (HEIGHT - 3)).toFixed(1)}`).join(" ");
}

function stage(name) {
  const element = document.createElement("li");
  const label = Object.assign(document.createElement("span"), { className: "stage-name", textContent: name, title: STAGES[name] ?? "" });
  const room = Object.assign(document.createElement("span"), { className: "stage-bar" });
  const [most, half] = ["most", "half"].map((className) => Object.assign(document.createElement("span"), { className }));
  const words = Object.assign(document.createElement("span"), { className: "words" });
  room.setAttribute("aria-hidden", "true");
  room.append(most, half);
  element.append(label, room, words);
  return { element, most, half, words };
}

function showStage({ most, half, words }, times, longest) {
  most.style.width = `${times ? (100 * times.p95_ms) / longest : 0}%`;
  half.style.width = `${times ? (100 * times.p50_ms) / longest : 0}%`;
  put(words, times ? `${milliseconds(times.p50_ms)}, ${milliseconds(times.p95_ms)}` : "not lately");
}

// An unchanged text is left alone.
function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
