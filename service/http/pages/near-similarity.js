// What is known of the embedded pictures together: all cosines, and a place on the map for each. Draws nothing.

// Its event "change" says that there is something new. Until then the fields belong together and stay as they are.
export class Similarity extends EventTarget {
  pictures = [];
  // The results that the pictures had when this was computed.
  results = [];
  cosines = new Float64Array();
  points = new Float64Array();
  share = 1;
  #worker = null;
  #round = 0;
  #asked = [];
  #waiting = null;

  // Computes everything for these pictures, which all have vectors of one model. Nothing happens if nothing has changed.
  compute(pictures) {
    const results = pictures.map(({ result }) => result);
    if (results.length === this.#asked.length && results.every((result, i) => result === this.#asked[i])) return;
    this.#asked = results;
    const round = ++this.#round;
    if (!pictures.length) return this.#set({ pictures, results, cosines: new Float64Array(), points: new Float64Array(), share: 1 });
    const width = results[0].embedding.length;
    const vectors = new Float32Array(width * results.length);
    results.forEach(({ embedding }, i) => vectors.set(embedding, i * width));
    this.#started().postMessage({ round, vectors, count: results.length }, [vectors.buffer]);
    this.#waiting = { pictures, results };
  }

  cosine(row, column) {
    return this.cosines[row * this.pictures.length + column];
  }

  // [{picture, cosine}] of all others, the nearest first. Empty for a picture without a vector.
  neighbours(picture) {
    const row = this.pictures.indexOf(picture);
    if (row < 0) return [];
    return ranked(this.pictures.map((other, i) => ({ picture: other, cosine: this.cosine(row, i) }))
      .filter((entry) => entry.picture !== picture));
  }

  // The places of the pictures from one end of the map to the other: those that are alike come one after the other.
  get order() {
    return this.pictures.map((_, i) => i).sort((a, b) => this.points[2 * a] - this.points[2 * b] || a - b);
  }

  #set(fields) {
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
  }

  #started() {
    if (!this.#worker) {
      this.#worker = new Worker(new URL("near-worker.js", import.meta.url), { type: "module" });
      this.#worker.addEventListener("message", ({ data: { round, ...fields } }) => {
        // An older answer is of no use.
        if (round === this.#round) this.#set({ ...this.#waiting, ...fields });
      });
    }
    return this.#worker;
  }
}

// The highest cosine first; between equal ones, the order stays.
export function ranked(entries) {
  return entries.sort((a, b) => b.cosine - a.cosine);
}
