// The panel "Near": which of the pictures are alike, which fit words, and how a vector changes with its budget.

import { enable, onPress, show as showOrHide } from "./controls.js";
import { embedAll } from "./embedding.js";
import { Drift } from "./near-drift.js";
import { NearMap } from "./near-map.js";
import { Matrix } from "./near-matrix.js";
import { showRanking } from "./near-ranking.js";
import { Similarity } from "./near-similarity.js";
import { inSlices, nextTask, tile } from "./near-tiles.js";
import { Labels, Search } from "./near-words.js";
import { count, failuresOf, number } from "./words.js";

const NEIGHBOURS = 6;

export function startNear(root, pictures, server) {
  const find = (id) => root.querySelector(`#near-${id}`);
  const choose = (picture) => pictures.select(picture);
  const similarity = new Similarity();
  const map = new NearMap(find("map"), similarity, choose);
  const matrix = new Matrix(find("matrix"), similarity, choose);
  const search = new Search(root, pictures, server, choose);
  new Labels(root, pictures, server);
  const drift = new Drift(root, pictures, server);
  const showWork = startEmbedding(root, find, pictures, server);
  startChosen(root, pictures);
  let isOpen = false;
  let frame = 0;
  let round = 0;

  const drawSimilar = async () => {
    const ours = ++round;
    const isOver = () => ours !== round || !isOpen;
    find("similar").hidden = similarity.pictures.length < 2;
    if (find("similar").hidden) return;
    await inSlices(similarity.pictures, tile);
    if (!isOver()) await map.prepare();
    if (isOver()) return;
    const { selected } = pictures;
    find("share").textContent =
      `What lies close together is alike. The map shows ${Math.round(100 * similarity.share)}% of the differences, the cosines all.`;
    map.draw(selected);
    const neighbours = similarity.neighbours(selected);
    showRanking(find("neighbours"), neighbours.slice(0, NEIGHBOURS), choose);
    find("neighbours-none").hidden = neighbours.length > 0;
    await nextTask();
    if (!isOver()) matrix.draw(pictures.selected);
  };

  const update = () => {
    if (!isOpen) return;
    showWork();
    drift.draw();
    // Nothing jumps about while vectors come in.
    if (pictures.list.some(({ work }) => work)) return;
    const served = server.info?.fingerprint.value;
    similarity.compute(pictures.embedded.filter(({ result }) => result.fingerprint === served));
    search.draw();
    drawSimilar();
  };
  const later = () => {
    cancelAnimationFrame(frame);
    frame = requestAnimationFrame(update);
  };
  similarity.addEventListener("change", later);
  pictures.addEventListener("change", later);
  server.addEventListener("info", later);
  for (const event of ["resize", "themechange"]) addEventListener(event, later);
  return {
    open: () => ((isOpen = true), later()),
    close: () => (isOpen = false),
  };
}

// The button that embeds what has no vector yet. Returns what shows how far it is.
function startEmbedding(root, find, pictures, server) {
  let running = null;
  onPress(find("embed"), async () => {
    running = new AbortController();
    await embedAll(pictures, server, running.signal);
    running = null;
    show();
  });
  find("stop").addEventListener("click", () => running?.abort());

  const show = () => {
    const { list, embedded, choice } = pictures;
    const left = list.length - embedded.length;
    const isWorking = list.some(({ work }) => work);
    const at = choice.budget ? ` at ${count(choice.budget, "token")}` : "";
    showOrHide(find("embed"), left > 0, root);
    enable(find("embed"), !isWorking && Boolean(choice.strategy));
    find("embed").textContent = `Embed ${count(left, "picture")}`;
    showOrHide(find("stop"), running !== null, left ? find("embed") : root);
    const said = !list.length
      ? "There are no pictures. Drop some anywhere on the page."
      : isWorking
        ? `Embedding: ${number(embedded.length)} of ${count(list.length, "picture")} done.`
        : `${number(embedded.length)} of ${count(list.length, "picture")} embedded${at}, ${choice.strategy}.` +
          (embedded.length < 2 ? " Similarity takes at least two." : "");
    const state = [said, ...failuresOf(list)].join(" ");
    if (find("state").textContent !== state) find("state").textContent = state;
  };
  return show;
}

// The chosen picture as a list: the way without a pointer.
function startChosen(root, pictures) {
  const fields = root.querySelectorAll(".near-picture");
  let shown = "";
  for (const field of fields) {
    field.addEventListener("change", () => pictures.select(pictures.list.find(({ id }) => id === Number(field.value)) ?? null));
  }
  pictures.addEventListener("change", () => {
    const names = JSON.stringify(pictures.list.map(({ id, name }) => [id, name]));
    for (const field of fields) {
      if (names !== shown) field.replaceChildren(...pictures.list.map(({ id, name }) => new Option(name, id)));
      field.value = pictures.selected?.id ?? "";
    }
    shown = names;
  });
}
