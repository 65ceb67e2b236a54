// Pictures to begin with. `python -m training.samples` drew them.

const NAMES = ["lake.webp", "receipt.webp", "icon.webp", "chart.webp"];

// Adds those that are not there yet. unasked: unless somebody brought pictures in the meantime.
export async function addSamples(pictures, server, { unasked = false } = {}) {
  const there = new Set(pictures.list.filter((picture) => picture.sample).map((picture) => picture.name));
  const missing = NAMES.filter((name) => !there.has(name));
  const files = await Promise.all(
    missing.map(async (name) => {
      const answer = await server.fetch(sampleUrl(server, name));
      return new File([await answer.blob()], name, { type: "image/webp" });
    }),
  );
  if (unasked && pictures.list.length) return;
  pictures.add(files, { sample: true });
}

export function sampleUrl(server, name) {
  return server.url(`pages/${name}`);
}
