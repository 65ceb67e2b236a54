// The pictures of the page, what the user chose for them, and what is known of each. All panels share one `Pictures`,
// and hear of every change through its event "change". Draws nothing and asks no server.

// Each takes up to a megabyte for its thumbnail.
export const MOST_PICTURES = 200;

// A picture is a plain object:
//   id, name, file (the File as it was given: its bytes are read only to be sent), sample (whether it is one of ours)
//   state    "reading", "shown", or "unshown" where the browser cannot show it; the server may read it all the same
//   size     [height, width] upright, in pixels; null until it is known
//   thumb    an ImageBitmap, smaller than the picture (see thumbs.js), or null
//   plan     what the server would make of it now: see plans.js; null until it has answered
//   work     "", "waiting" or "embedding"
//   note     why it waits, in words
//   result   the last answer of /embed: see embedding.js; null if there is none. `isCurrent` says whether it belongs to
//            what is chosen now
//   failure  why the server did not embed it, in its words; ""
//   version  counts its changes
export class Pictures extends EventTarget {
  list = [];
  // budget: tokens, null for a model that takes no budget. strategy: a name.
  choice = { budget: null, strategy: null };
  selected = null;
  // Files of the last `add` that were one too many.
  leftOut = 0;
  // What each `remove` and `clear` took away, the last one last: [{picture, at}], at: its place in the list. `add` forgets it.
  #removed = [];
  #lastId = 0;
  #worker = null;
  #announced = false;

  // Files are read one after the other, in a worker: fifty large ones leave the page responsive.
  add(files, { sample = false } = {}) {
    // Whoever brings pictures does not want ours any more.
    if (!sample) this.#drop((picture) => picture.sample);
    const room = MOST_PICTURES - this.list.length;
    this.leftOut = Math.max(0, files.length - room);
    this.#removed = [];
    for (const file of files.slice(0, room)) {
      const picture = {
        id: ++this.#lastId, name: file.name || "picture", file, sample, state: "reading", size: null, thumb: null,
        plan: null, work: "", note: "", result: null, failure: "", version: 0,
      };
      this.list.push(picture);
      this.#read(picture);
    }
    this.selected ??= this.list[0] ?? null;
    this.#announce();
  }

  remove(picture) {
    this.#removed.push(this.#drop((other) => other === picture));
    this.#announce();
  }

  clear() {
    this.leftOut = 0;
    this.#removed.push(this.#drop(() => true));
    this.#announce();
  }

  // How many `restore` would bring back.
  get removed() {
    return this.#removed.at(-1)?.length ?? 0;
  }

  // Brings back what was removed last, with its vectors. Files are read again: thumbnails were given up.
  restore() {
    for (const { picture, at } of this.#removed.pop() ?? []) {
      this.list.splice(at, 0, picture);
      this.#set(picture, { state: "reading", thumb: null });
      this.#read(picture);
    }
    this.selected ??= this.list[0] ?? null;
    this.#announce();
  }

  select(picture) {
    this.selected = picture;
    this.#announce();
  }

  choose(changes) {
    this.choice = { ...this.choice, ...changes };
    // A refusal belongs to what was chosen when it came.
    for (const picture of this.list) if (picture.failure) this.#set(picture, { failure: "" });
    this.#announce();
  }

  // Forgets vectors of other models: they do not compare with those that Embed would give now.
  keepVectorsOf(fingerprint) {
    for (const picture of [...this.list, ...this.#removed.flat().map((each) => each.picture)]) {
      if (picture.result && picture.result.fingerprint !== fingerprint) this.#set(picture, { result: null });
    }
    this.#announce();
  }

  update(picture, changes) {
    this.#set(picture, changes);
    this.#announce();
  }

  has(picture) {
    return this.list.includes(picture);
  }

  // Whether the picture's vector is what Embed would give now.
  isCurrent(picture) {
    const { result } = picture;
    return result !== null && result.budget === this.choice.budget && result.strategy === this.choice.strategy;
  }

  // The pictures that have such a vector.
  get embedded() {
    return this.list.filter((picture) => this.isCurrent(picture));
  }

  #set(picture, changes) {
    Object.assign(picture, changes);
    picture.version++;
  }

  // Returns what was dropped, and where it stood.
  #drop(condition) {
    const dropped = this.list.map((picture, at) => ({ picture, at })).filter(({ picture }) => condition(picture));
    for (const { picture } of dropped) {
      picture.thumb?.close();
      if (picture.state === "reading") this.#thumbs().postMessage({ id: picture.id, file: null });
    }
    this.list = this.list.filter((picture) => !condition(picture));
    if (!this.list.includes(this.selected)) this.selected = this.list[0] ?? null;
    return dropped;
  }

  #read({ id, file }) {
    this.#thumbs().postMessage({ id, file });
  }

  #thumbs() {
    if (!this.#worker) {
      this.#worker = new Worker(new URL("thumbs.js", import.meta.url), { type: "module" });
      this.#worker.addEventListener("message", ({ data: { id, size, thumb } }) => {
        const picture = this.list.find((other) => other.id === id);
        // Removed, or read twice because it was removed and brought back.
        if (picture?.state !== "reading") thumb?.close();
        else this.update(picture, thumb ? { state: "shown", size, thumb } : { state: "unshown" });
      });
    }
    return this.#worker;
  }

  // One event for all changes of a moment.
  #announce() {
    if (this.#announced) return;
    this.#announced = true;
    queueMicrotask(() => {
      this.#announced = false;
      this.dispatchEvent(new Event("change"));
    });
  }
}
