// Numbers and names in words.

export const number = (value) => value.toLocaleString("en");

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

// Width first, as people say it. Sizes of the server have the height first.
export const size = ([height, width]) => `${number(width)} × ${number(height)}`;

// A name within a sentence. One that is written from right to left would turn the numbers behind it around.
export const named = (name) => `\u2068${name}\u2069`;

// Rows first, as /embed answers it.
export const grid = ([rows, columns]) => `${rows} × ${columns}`;

export const milliseconds = (ms) => (ms < 10 ? `${ms.toFixed(1)} ms` : ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);

export const STRATEGIES = {
  naflex: "Keeps the picture's shape, and scales it up or down until it nearly fills the budget.",
  native: "Keeps the picture's own size, unless that is over the budget. An icon is not blown up.",
  square: "Squashes or crops every picture to one square, as most models do.",
  anyres: "One small view of the whole picture, then tiles that show it larger.",
};

// Three places: the third is where neighbours differ.
export const cosineOf = (value) => value.toFixed(3);
