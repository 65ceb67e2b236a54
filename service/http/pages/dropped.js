// What a drop brings: its files, and the pictures in its folders.

// Those of `packlight embed`: SUFFIXES in model/images.
const PICTURE = /\.(jpe?g|jpe|jfif|jif|jfi|pjpeg|pjp|mpo|a?png|webp|avifs?|gif|bmp|dib|tiff?|jp2|j2k|j2c|jpc|jpf|jpx|hei[cf]s?|hif)$/i;
// Many more than the page holds. No others are looked for.
const MOST_FOUND = 10_000;

// The folders of a drop. Must be called while its event lasts.
export function foldersOf({ items }) {
  return [...items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry?.isDirectory);
}

// The files whose names are those of pictures, in `folders` and the folders in them. One that cannot be read is left out.
export async function picturesIn(folders) {
  const found = [];
  const left = [...folders];
  while (left.length && found.length < MOST_FOUND) {
    for (const entry of await entriesOf(left.shift())) {
      if (entry.isDirectory) left.push(entry);
      else if (PICTURE.test(entry.name)) {
        const file = await new Promise((resolve) => entry.file(resolve, () => resolve(null)));
        if (file) found.push(file);
      }
    }
  }
  return found;
}

// A browser gives them a hundred at a time.
async function entriesOf(folder) {
  const reader = folder.createReader();
  const entries = [];
  for (;;) {
    const more = await new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    if (!more.length) return entries.sort((one, other) => one.name.localeCompare(other.name, "en", { numeric: true }));
    entries.push(...more);
  }
}
