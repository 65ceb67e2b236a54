// How one picture's vector changes with its budget: the same picture at a ladder of budgets, as a curve and as a table.

import { enable, onPress, show as showOrHide } from "./controls.js";
import { embedFile } from "./embedding.js";
import { cosine } from "./near-geometry.js";
import { count, grid, milliseconds, number } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const LOWEST = 64;
const FEW_STEPS = 7;
const AT_ONCE = 2;
// What searches hardly notice any more.
const ENOUGH = 0.99;
// So that nothing is rounded to what it does not reach.
const PLACES = 4;
const CURVE = { height: 300, left: 54, right: 18, top: 16, bottom: 44 };
const LEAST_WIDTH = 280;

// Budgets from 64 up to the server's cap, each twice the one before; for a low cap also those between. own: those of a
// model that knows no others.
export function ladder(cap, own = []) {
  if (own.length) return own.filter((budget) => budget <= cap);
  const doubled = [];
  for (let budget = LOWEST; budget < cap; budget *= 2) doubled.push(budget);
  const between = doubled.length < FEW_STEPS ? doubled.map((budget) => 1.5 * budget).filter((budget) => budget < cap) : [];
  return [...doubled, ...between, cap].sort((a, b) => a - b);
}

export class Drift {
  #find;
  #pictures;
  #server;
  #running = null;
  // By picture: {key, steps}. A step is {budget, result, failure}.
  #kept = new WeakMap();

  constructor(root, pictures, server) {
    this.#find = (id) => root.querySelector(`#near-drift-${id}`);
    this.#pictures = pictures;
    this.#server = server;
    onPress(this.#find("run"), () => this.#run());
    this.#find("stop").addEventListener("click", () => this.#running?.abort());
  }

  // What is running goes on with the picture that it began with.
  draw() {
    const { selected } = this.#pictures;
    const { info } = this.#server;
    if (!info) return;
    const fixed = info.model.geometry.fixed !== null;
    this.#find("hint").textContent = fixed
      ? `${info.model.name} has one grid: every picture becomes the same ${count(info.model.default_max_tokens, "token")}. ` +
        "Its vectors know no budget, so there is nothing to choose."
      : "One picture at several budgets: the cosine of each vector to that of the largest budget.";
    this.#find("controls").hidden = fixed;
    enable(this.#find("run"), selected !== null && this.#running === null);
    showOrHide(this.#find("stop"), this.#running !== null, this.#find("run"));
    const known = selected && this.#kept.get(selected);
    this.#find("result").hidden = fixed || known?.key !== this.#key();
    if (!this.#find("result").hidden) this.#show(known.steps);
  }

  // What a curve belongs to.
  #key(strategy = this.#pictures.choice.strategy) {
    const { info } = this.#server;
    return `${info.fingerprint.value} ${strategy} ${info.limits.max_image_tokens}`;
  }

  async #run() {
    const { selected: picture, choice: { strategy } } = this.#pictures;
    const { limits, model } = this.#server.info;
    const steps = ladder(limits.max_image_tokens, model.geometry.budgets).map((budget) => ({ budget, result: null, failure: "" }));
    const running = new AbortController();
    const say = (text) => (this.#find("said").textContent = text);
    const queue = [...steps].reverse();
    this.#running = running;
    this.#kept.delete(picture);
    this.draw();
    const worker = async () => {
      while (queue.length && !running.signal.aborted) {
        const step = queue.shift();
        const busy = (waitS) => say(`The server is busy and asks for a pause of ${waitS} s.`);
        try {
          step.result = await embedFile(this.#server, picture.file, { budget: step.budget, strategy }, { signal: running.signal, busy });
          say(`${steps.filter(({ result }) => result).length} of ${steps.length} budgets`);
        } catch (error) {
          step.failure = error.message;
        }
      }
    };
    say(`0 of ${steps.length} budgets`);
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    this.#running = null;
    say(running.signal.aborted ? "Stopped." : await this.#keep(picture, strategy, steps));
    this.draw();
  }

  // Returns what is wrong with it, or "".
  async #keep(picture, strategy, steps) {
    const models = new Set(steps.filter(({ result }) => result).map(({ result }) => result.fingerprint));
    if (models.size > 1) return "The server was started anew with another model meanwhile. Measure again.";
    if (models.size && !models.has(this.#server.info.fingerprint.value)) await this.#server.readInfo().catch(() => null);
    this.#kept.set(picture, { key: this.#key(strategy), steps });
    return "";
  }

  #show(steps) {
    const done = steps.filter(({ result }) => result);
    const last = done.at(-1);
    for (const step of done) step.cosine = cosine(step.result.embedding, last.result.embedding);
    this.#find("sentence").textContent = sentence(done, steps);
    const room = Math.max(LEAST_WIDTH, this.#find("curve").clientWidth);
    this.#find("curve").replaceChildren(...(done.length > 1 ? [curve(done, room)] : []));
    this.#find("rows").replaceChildren(...steps.map(row));
  }
}

// What the curve says, in one sentence.
export function sentence(done, steps) {
  if (!done.length) return `The server took the picture at no budget: ${steps.at(-1).failure}.`;
  const last = done.at(-1).result;
  const most = count(last.tokens, "token");
  if (done.every(({ result }) => result.tokens === last.tokens)) {
    return `At every budget the picture takes the same ${most}, so the budget changes nothing.`;
  }
  let first = done.length - 1;
  while (first > 0 && done[first - 1].cosine >= ENOUGH) first--;
  const { result } = done[first];
  if (result.tokens === last.tokens) return `Below ${most} the cosine falls under ${ENOUGH}: this picture gains from every token.`;
  if (first === 0) return `Already ${count(result.tokens, "token")} give a cosine of at least ${ENOUGH} to the vector of ${most}.`;
  return `From ${count(result.tokens, "token")} on, the cosine to the vector of ${most} is at least ${ENOUGH}.`;
}

function row({ budget, result, failure, cosine }) {
  const cells = result
    ? [number(budget), number(result.tokens), grid(result.grid), cosine.toFixed(PLACES), milliseconds(result.ms)]
    : [number(budget), failure];
  const element = document.createElement("tr");
  element.append(
    ...cells.map((text, i) => {
      const cell = document.createElement(i ? "td" : "th");
      if (!i) cell.scope = "row";
      cell.textContent = text;
      return cell;
    }),
  );
  if (!result) element.lastChild.colSpan = 4;
  return element;
}

// Tokens along, in steps of doubling; cosines up, from a little under the lowest to 1.
function curve(done, width) {
  const { height, left, right, top, bottom } = CURVE;
  const tokens = done.map(({ result }) => result.tokens);
  const [least, most] = [Math.min(...tokens), Math.max(...tokens)];
  const lowest = Math.min(...done.map((step) => step.cosine), ENOUGH);
  const unit = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((each) => (1 - lowest) / each <= 5) ?? 0.5;
  const floor = Math.floor((lowest - 1e-9) / unit) * unit;
  const x = (value) => left + (Math.log(value / least) / (Math.log(most / least) || 1)) * (width - left - right);
  const y = (value) => top + ((1 - value) / (1 - floor)) * (height - top - bottom);
  const drawing = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  drawing.setAttribute("aria-label", done.map((step) => `${step.result.tokens} tokens: ${step.cosine.toFixed(PLACES)}`).join(", "));
  for (let at = 0; 1 - at * unit >= floor - 1e-9; at++) {
    const value = 1 - at * unit;
    drawing.append(make("line", { class: "near-rule", x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    drawing.append(make("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(unit < 0.01 ? 3 : 2)));
  }
  drawing.append(make("line", { class: "near-enough", x1: left, x2: width - right, y1: y(ENOUGH), y2: y(ENOUGH) }));
  // From the right, so that the largest is always named.
  let free = Infinity;
  for (const value of [...new Set(tokens)].sort((a, b) => b - a)) {
    if (x(value) > free) continue;
    drawing.append(make("text", { x: x(value), y: height - bottom + 20, "text-anchor": "middle" }, number(value)));
    free = x(value) - 44;
  }
  drawing.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, "tokens"));
  const corners = done.map((step) => `${x(step.result.tokens)},${y(step.cosine)}`);
  drawing.append(make("polyline", { points: corners.join(" ") }));
  for (const step of done) drawing.append(make("circle", { cx: x(step.result.tokens), cy: y(step.cosine), r: 4 }));
  return drawing;
}

function make(name, attributes, text = "") {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}
