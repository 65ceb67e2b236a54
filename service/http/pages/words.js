// Numbers and names in words.

export const number = (value) => value.toLocaleString("en");

export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

// Width first, as people say it. Sizes of the server have the height first.
export const size = ([height, width]) => `${number(width)} × ${number(height)}`;

// Letters of scripts that go from right to left, and signs that turn what follows.
const TURNS = /[\u0590-\u08ff\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;

// A name within a sentence. One that is written from right to left would turn the numbers behind it around.
export const named = (name) => (TURNS.test(name) ? `\u2068${name}\u2069` : name);

// The pictures of a list that the server did not embed, in sentences. The rest is on their cards.
const MOST_FAILURES = 3;

export function failuresOf(pictures) {
  const failed = pictures.filter(({ failure }) => failure);
  const said = failed.slice(0, MOST_FAILURES).map(({ name, failure }) => `${named(name)} was not: ${failure}.`);
  const left = failed.length - said.length;
  return left > 0 ? [...said, `${count(left, "other was not", "others were not")}: see their cards in Try.`] : said;
}

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
