// The map: a thumbnail for each picture, near to those that are alike, and lines from the chosen one to its neighbours.

import { inSlices, tileElement } from "./near-tiles.js";

const SVG = "http://www.w3.org/2000/svg";
const LINES = 3;
// The least distance of two pictures, as a part of a thumbnail's side.
const SEEN = 0.7;
const ROUNDS = 40;
const MARGIN = 24;
const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };

export class NearMap {
  #root;
  #choose;
  #lines = document.createElementNS(SVG, "svg");
  // By picture: {element, thumb, x, y}: what it shows, and its middle in CSS pixels.
  #points = new Map();
  #similarity;
  #side = 0;

  constructor(root, similarity, choose) {
    this.#root = root;
    this.#similarity = similarity;
    this.#choose = choose;
    this.#lines.setAttribute("aria-hidden", "true");
    root.append(this.#lines);
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  // Makes what is missing of the map, a few pictures at a time. Call `draw` then.
  async prepare() {
    const { pictures } = this.#similarity;
    const side = sideOf(pictures.length, this.#root.clientWidth);
    for (const [picture, { element, thumb }] of this.#points) {
      if (side === this.#side && pictures.includes(picture) && thumb === picture.thumb) continue;
      element.remove();
      this.#points.delete(picture);
    }
    this.#side = side;
    await inSlices(pictures, (picture) => this.#point(picture));
  }

  draw(chosen) {
    const { pictures, points } = this.#similarity;
    const { clientWidth: width, clientHeight: height } = this.#root;
    const side = this.#side;
    const places = placed(points, { width: width - side - MARGIN, height: height - side - MARGIN }, SEEN * side);
    pictures.forEach((picture, i) => {
      const point = this.#point(picture);
      Object.assign(point, { x: places[i].x + width / 2, y: places[i].y + height / 2 });
      point.element.style.transform = `translate(${point.x}px, ${point.y}px) translate(-50%, -50%)`;
    });
    this.#mark(chosen);
  }

  #point(picture) {
    if (!this.#points.has(picture)) this.#points.set(picture, this.#made(picture));
    return this.#points.get(picture);
  }

  #made(picture) {
    const element = Object.assign(document.createElement("button"), { type: "button", className: "near-point" });
    element.setAttribute("aria-label", picture.name);
    element.title = picture.name;
    element.append(tileElement(picture, this.#side));
    element.addEventListener("click", () => this.#choose(picture));
    this.#root.append(element);
    return { element, thumb: picture.thumb, x: 0, y: 0 };
  }

  // One of the pictures can be reached by Tab, the others by arrow keys.
  #mark(chosen) {
    const first = this.#points.has(chosen) ? chosen : this.#similarity.pictures[0];
    for (const [picture, { element }] of this.#points) {
      element.tabIndex = picture === first ? 0 : -1;
      element.setAttribute("aria-pressed", picture === chosen);
    }
    const from = this.#points.get(chosen);
    const near = from ? this.#similarity.neighbours(chosen).slice(0, LINES) : [];
    this.#lines.replaceChildren(
      ...near.map(({ picture }) => {
        const line = document.createElementNS(SVG, "line");
        const to = this.#points.get(picture);
        for (const [name, value] of Object.entries({ x1: from.x, y1: from.y, x2: to.x, y2: to.y })) line.setAttribute(name, value);
        return line;
      }),
    );
  }

  // To the nearest picture in the arrow's direction: not more aside than ahead.
  #move(event) {
    const direction = DIRECTIONS[event.key];
    const from = [...this.#points.values()].find(({ element }) => element === document.activeElement);
    if (!direction || !from) return;
    event.preventDefault();
    const ahead = [...this.#points.values()]
      .map((point) => {
        const [right, down] = [point.x - from.x, point.y - from.y];
        return { point, along: right * direction[0] + down * direction[1], distance: Math.hypot(right, down) };
      })
      .filter(({ point, along, distance }) => point !== from && along > 0 && along >= distance * Math.SQRT1_2 - 1e-9);
    if (!ahead.length) return;
    const { element } = ahead.reduce((best, each) => (each.distance < best.distance ? each : best)).point;
    from.element.tabIndex = -1;
    element.tabIndex = 0;
    element.focus();
  }
}

function sideOf(count, width) {
  const side = count <= 12 ? 72 : count <= 50 ? 48 : 32;
  return width < 500 ? Math.round(side * 0.75) : side;
}

// Fits the points into a box around its middle: [{x, y}]. Both axes have one scale, so that distances compare. Points
// that are closer than `least` are moved apart as far as there is room, so that none covers another wholly.
function placed(points, box, least) {
  const range = [0, 1].map((axis) => {
    const values = points.filter((_, i) => i % 2 === axis);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return { middle: (low + high) / 2, extent: high - low };
  });
  const scale = Math.min(box.width / Math.max(range[0].extent, 1e-6), box.height / Math.max(range[1].extent, 1e-6));
  const places = Array.from({ length: points.length / 2 }, (_, i) => ({
    x: (points[2 * i] - range[0].middle) * scale,
    // The vertical axis of the screen points down.
    y: (range[1].middle - points[2 * i + 1]) * scale,
  }));
  for (let round = 0; round < ROUNDS && spread(places, box, least); round++);
  return places;
}

// One round of moving apart. Returns whether anything moved.
function spread(places, { width, height }, least) {
  let moved = false;
  const enough = (least - 0.5) ** 2;
  for (let i = 0; i < places.length; i++) {
    const a = places[i];
    for (let j = 0; j < i; j++) {
      const b = places[j];
      const squared = (a.x - b.x) ** 2 + (a.y - b.y) ** 2;
      if (squared >= enough) continue;
      const distance = Math.sqrt(squared);
      // In one place: any direction, and another for each pair.
      const angle = distance > 1e-6 ? Math.atan2(a.y - b.y, a.x - b.x) : i + 2 * j;
      const step = (least - distance) / 2;
      for (const [point, sign] of [[a, 1], [b, -1]]) {
        point.x = clamp(point.x + sign * step * Math.cos(angle), width / 2);
        point.y = clamp(point.y + sign * step * Math.sin(angle), height / 2);
      }
      moved = true;
    }
  }
  return moved;
}

const clamp = (value, most) => Math.max(-most, Math.min(most, value));
