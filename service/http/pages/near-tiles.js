// Small copies of pictures, to be drawn many times: on the map, along the matrix, in lists.

const SIDE = 144;
const SLICE_MS = 8;
// Pictures that the browser cannot show. Both colours can be read in light and dark.
const PLATE = { ground: "#5f5a55", ink: "#ffffff" };

// By picture: {thumb, copy}, made again when the picture has got its thumbnail.
const kept = new WeakMap();

// Does `work` for each item, a few at a time, so that the page stays responsive.
export async function inSlices(items, work) {
  let startedMs = performance.now();
  for (const item of items) {
    work(item);
    if (performance.now() - startedMs < SLICE_MS) continue;
    await nextTask();
    startedMs = performance.now();
  }
}

export const nextTask = () => new Promise((resolve) => setTimeout(resolve));

// The copy of a picture, its shape kept: an ImageBitmap of at most SIDE × SIDE.
export function tile(picture) {
  if (kept.get(picture)?.thumb !== picture.thumb) kept.set(picture, { thumb: picture.thumb, copy: made(picture) });
  return kept.get(picture).copy;
}

// A new element of at most `side` × `side` CSS pixels that shows the picture. It says nothing to a screen reader.
export function tileElement(picture, side) {
  const copy = tile(picture);
  const ratio = window.devicePixelRatio || 1;
  const scale = side / Math.max(copy.width, copy.height);
  const element = document.createElement("canvas");
  const [width, height] = [copy.width * scale, copy.height * scale].map((length) => Math.max(4, Math.round(length)));
  Object.assign(element, { width: width * ratio, height: height * ratio });
  Object.assign(element.style, { width: `${width}px`, height: `${height}px` });
  element.setAttribute("aria-hidden", "true");
  const pen = element.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(copy, 0, 0, element.width, element.height);
  return element;
}

function made({ thumb, name }) {
  // A thumbnail that was closed has no size.
  if (!thumb?.width) return plate(name);
  const scale = SIDE / Math.max(thumb.width, thumb.height);
  const [width, height] = [thumb.width * scale, thumb.height * scale].map((length) => Math.max(1, Math.round(length)));
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(thumb, 0, 0, width, height);
  return canvas.transferToImageBitmap();
}

function plate(name) {
  const canvas = new OffscreenCanvas(SIDE, SIDE);
  const pen = canvas.getContext("2d");
  const dot = name.lastIndexOf(".");
  pen.fillStyle = PLATE.ground;
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.fillStyle = PLATE.ink;
  pen.font = "600 40px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(dot > 0 ? name.slice(dot + 1, dot + 6).toUpperCase() : "?", SIDE / 2, SIDE / 2, SIDE - 16);
  return canvas.transferToImageBitmap();
}
