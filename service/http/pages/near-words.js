// Searching the pictures by words, and how well labels fit them, where the model has text.

import { show as showOrHide } from "./controls.js";
import { whenFree } from "./embedding.js";
import { cosine } from "./near-geometry.js";
import { showRanking } from "./near-ranking.js";
import { ranked } from "./near-similarity.js";
import { named } from "./words.js";

const SHOWN = 12;

export class Search {
  #find;
  #pictures;
  #server;
  #choose;
  #asking = new AbortController();
  // The words that were asked for last, and their vector.
  #asked = null;

  constructor(root, pictures, server, choose) {
    this.#find = (id) => root.querySelector(`#near-${id}`);
    this.#pictures = pictures;
    this.#server = server;
    this.#choose = choose;
    this.#find("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask(this.#find("words").value.trim());
    });
    server.addEventListener("info", () => this.#showWhether(server.info.model));
  }

  // Ranks the pictures that have a vector now.
  draw() {
    const entries = this.#asked
      ? this.#pictures.embedded.map((picture) => ({ picture, cosine: cosine(this.#asked.vector, picture.result.embedding) }))
      : [];
    showRanking(this.#find("found"), ranked(entries).slice(0, SHOWN), this.#choose);
  }

  #showWhether({ name, text }) {
    this.#asked = null;
    this.#find("with-text").hidden = text === null;
    this.#find("no-text").hidden = text !== null;
    this.#find("no-text").textContent =
      `${name} is served without a text tower and a tokenizer, so it has vectors for pictures and none for words; to search ` +
      "by words, serve a whole SigLIP 2, SigLIP or CLIP checkpoint, such as google/siglip2-base-patch16-naflex.";
    this.draw();
  }

  async #ask(words) {
    if (!words) return;
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const say = (text) => (this.#find("search-said").textContent = text);
    const busy = (waitS) => say(`The server is busy and asks for a pause of ${waitS} s.`);
    say("Asking…");
    try {
      // A model with prompts has one for what is searched by.
      const question = { texts: [words], ...("query" in (this.#server.info.model.text.tasks ?? {}) && { task: "query" }) };
      const answer = await whenFree(() => this.#server.postJson("embed", question, signal), { signal, busy });
      this.#asked = { words, vector: answer.data[0].embedding };
      this.draw();
      const [first] = this.#find("found").querySelectorAll(".near-name");
      say(first ? `Nearest to “${named(words)}”: ${named(first.textContent)}.` : "No picture is embedded yet.");
    } catch (error) {
      if (error.name !== "AbortError") say(`Not found: ${error.message}.`);
    }
  }
}

const AT_ONCE = 2;

export class Labels {
  #find;
  #pictures;
  #server;
  #asking = new AbortController();

  constructor(root, pictures, server) {
    this.#find = (id) => root.querySelector(`#near-labels-${id}`);
    this.#pictures = pictures;
    this.#server = server;
    this.#find("form").addEventListener("submit", (event) => {
      event.preventDefault();
      const labels = this.#find("text").value.split(",").map((label) => label.trim()).filter(Boolean);
      if (labels.length) this.#ask([...new Set(labels)]);
    });
    this.#find("stop").addEventListener("click", () => this.#asking.abort());
    server.addEventListener("info", () => this.#showMeaning(server.info.model.text));
  }

  // A model without logits has vectors to search by, and no probabilities.
  #showMeaning(text) {
    this.#find("all").hidden = !text?.probability;
    this.#find("hint").textContent = text?.probability === "softmax"
      ? "Separated by commas. The model divides 100% among the labels."
      : "Separated by commas. The model gives each label its own probability; they need not add up to 100%.";
  }

  // The pictures go to the server once more: /classify takes files.
  async #ask(labels) {
    this.#asking.abort();
    this.#asking = new AbortController();
    const { signal } = this.#asking;
    const queue = [...this.#pictures.embedded];
    const all = queue.length;
    const rows = new Map(queue.map((picture) => [picture, document.createElement("tr")]));
    const say = (text) => (this.#find("said").textContent = text);
    let done = 0;
    this.#showHead(labels, rows);
    say(all ? `0 of ${all} pictures` : "No picture is embedded yet.");
    this.#find("stop").hidden = !all;
    const worker = async () => {
      while (queue.length && !signal.aborted) {
        const picture = queue.shift();
        const busy = (waitS) => say(`The server is busy and asks for a pause of ${waitS} s.`);
        try {
          const item = await whenFree(() => this.#classify(picture, labels, signal), { signal, busy });
          showRow(rows.get(picture), picture, item.probabilities.map((each) => `${(100 * each).toFixed(1)}%`), labels.indexOf(item.label));
        } catch (error) {
          if (error.name === "AbortError") return;
          showRow(rows.get(picture), picture, [`Not classified: ${error.message}.`], -1);
        }
        say(`${++done} of ${all} pictures`);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    // Somebody may have asked for other labels meanwhile.
    if (signal === this.#asking.signal) showOrHide(this.#find("stop"), false, this.#find("text"));
  }

  async #classify({ file, result: { budget, strategy } }, labels, signal) {
    const form = new FormData();
    form.append("image", file);
    for (const label of labels) form.append("labels", label);
    const answer = await this.#server.json(this.#server.url("classify", { max_tokens: budget, strategy }), { method: "POST", body: form, signal });
    return answer.data[0];
  }

  #showHead(labels, rows) {
    const head = document.createElement("tr");
    head.append(...["Picture", ...labels].map((text) => Object.assign(document.createElement("th"), { scope: "col", textContent: text, title: text })));
    this.#find("head").replaceChildren(head);
    this.#find("rows").replaceChildren(...rows.values());
    this.#find("table").hidden = !rows.size;
  }
}

// best: the place of the label that fits best.
function showRow(row, picture, cells, best) {
  const name = Object.assign(document.createElement("th"), { scope: "row", textContent: picture.name, title: picture.name });
  row.replaceChildren(
    name,
    ...cells.map((text, i) => {
      const cell = document.createElement("td");
      const inside = document.createElement(i === best ? "strong" : "span");
      inside.textContent = text;
      cell.append(inside);
      return cell;
    }),
  );
}
