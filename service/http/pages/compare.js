// The chosen picture under every strategy of the model, and as a square of fixed models, side by side.

import { draw } from "./grid.js";
import { count, grid, named, size } from "./words.js";

// Models of one square, by the names that `/plan` gives them.
const SQUARES = { "fixed336/14": "A CLIP of 336 pixels", "siglip512/16": "A SigLIP of 512 pixels" };

export class Compare {
  #root;
  #pictures;
  #frame = 0;
  #drawn = "";
  #toReveal = false;

  constructor(root, pictures) {
    this.#root = root;
    this.#pictures = pictures;
    pictures.addEventListener("change", () => this.#later());
    for (const event of ["resize", "themechange"]) addEventListener(event, () => this.draw());
  }

  draw() {
    this.#drawn = "";
    this.#later();
  }

  // Many pictures may lie between it and the one that was clicked.
  reveal() {
    this.#toReveal = true;
    this.#later();
  }

  #later() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#update());
  }

  #update() {
    const { selected, choice } = this.#pictures;
    const plan = selected?.plan;
    this.#root.hidden = !plan;
    if (!plan || this.#root.closest("[hidden]")) return;
    const look = JSON.stringify([selected.id, selected.state, plan]);
    if (look !== this.#drawn) this.#draw(selected, choice, plan);
    this.#drawn = look;
    if (this.#toReveal) {
      this.#toReveal = false;
      const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
      this.#root.scrollIntoView({ behavior, block: "nearest" });
    }
  }

  #draw(selected, choice, plan) {
    this.#root.querySelector("#compare-hint").textContent =
      `${named(selected.name)}, ${size(selected.size)} pixels` + (choice.budget ? `, at a budget of ${count(plan.budget, "token")}.` : ".");
    const squares = plan.others.filter((option) => option.geometry in SQUARES && option.strategy === "square");
    const ways = [...plan.own, ...squares].map((option) => this.#way(option));
    this.#root.querySelector("#ways").replaceChildren(...ways.map((way) => way.element));
    for (const { canvas, option } of ways) {
      const room = canvas.parentElement;
      if (option.grid) draw(canvas, selected.thumb, option, { width: room.clientWidth, height: room.clientHeight });
    }
  }

  #way(option) {
    const element = document.createElement("li");
    const canvas = document.createElement("canvas");
    const room = document.createElement("div");
    const title = document.createElement("h3");
    const cost = document.createElement("p");
    const remark = document.createElement("p");
    element.className = ["way", option.loaded ? "" : "other", option.tokens === null ? "refused" : ""].join(" ");
    room.className = "room";
    title.textContent = option.loaded ? option.strategy : SQUARES[option.geometry];
    cost.className = "grid";
    cost.textContent = option.tokens === null ? "Not taken" : `${count(option.tokens, "token")}, ${option.segments > 1 ? `${option.segments} × ` : ""}${grid(option.grid)}`;
    remark.className = "hint";
    remark.textContent = sentence(option.remark);
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title.textContent}: ${option.remark}`);
    room.append(canvas);
    element.append(room, title, cost, remark);
    return { element, canvas, option };
  }
}

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
