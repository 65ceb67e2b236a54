// A worker: makes a small copy of each picture it is sent, one at a time, turned as the picture says.
// A picture of 12 megapixels takes 48 MB while it is decoded, and its copy a megabyte.

const THUMB_PIXELS = 250_000;
let last = Promise.resolve();

// By number: files that are still wanted. One that was removed before its turn is not read.
const wanted = new Map();

addEventListener("message", ({ data: { id, file } }) => {
  if (!file) return wanted.delete(id);
  wanted.set(id, file);
  last = last.then(() => answer(id));
});

async function answer(id) {
  const file = wanted.get(id);
  if (!wanted.delete(id)) return;
  try {
    const whole = await createImageBitmap(file);
    const size = [whole.height, whole.width];
    const scale = Math.min(1, Math.sqrt(THUMB_PIXELS / (whole.height * whole.width)));
    const [resizeHeight, resizeWidth] = size.map((side) => Math.max(1, Math.round(side * scale)));
    const thumb = await createImageBitmap(whole, { resizeHeight, resizeWidth, resizeQuality: "medium" });
    whole.close();
    postMessage({ id, size, thumb }, [thumb]);
  } catch {
    // Broken, too large, or of a format that this browser does not show.
    postMessage({ id, size: null, thumb: null });
  }
}
