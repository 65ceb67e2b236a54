// Which pack ran which picture, and what padding would have computed instead. Arithmetic alone: draws nothing.

// The packs that ran `pictures`, the oldest first: [{id, known, computed, slots}].
//   known     whether `/stats` has told of the pack (`packs`: its lines by id). If not, only our pictures are in `slots`
//   computed  tokens that the device computed, filler included; null if the pack is not known
//   slots     what it held: {picture, kind, tokens, lengths}. picture: null for somebody else's. kind: "image", "text"
//             or "rest", for what is too much to list. lengths: tokens of its segments
export function packsThatRan(pictures, packs) {
  const ours = new Map();
  for (const picture of pictures) {
    const { packId } = picture.result;
    if (!packId) continue;
    if (!ours.has(packId)) ours.set(packId, []);
    ours.get(packId).push(picture);
  }
  const ran = [...ours].map(([id, held]) => packThatRan(id, held, packs.get(id)));
  return ran.sort((one, other) => one.endedAt - other.endedAt);
}

function packThatRan(id, held, pack) {
  if (!pack) {
    return { id, known: false, computed: null, endedAt: Infinity, slots: held.map((picture) => slotOf(lengthsOf(picture), { picture })) };
  }
  // The pack's list has sizes alone. Two pictures of equal sizes are drawn alike, whichever is which.
  const left = [...held];
  const slots = pack.images.map((lengths) => {
    const at = left.findIndex((picture) => `${lengthsOf(picture)}` === `${lengths}`);
    return slotOf(lengths, { picture: at < 0 ? null : left.splice(at, 1)[0] });
  });
  // Beyond the images that a report lists.
  slots.push(...left.map((picture) => slotOf(lengthsOf(picture), { picture })));
  slots.push(...pack.texts.map((tokens) => slotOf([tokens], { kind: "text" })));
  const rest = pack.tokens - sum(slots.map(({ tokens }) => tokens));
  if (rest > 0) slots.push(slotOf([rest], { kind: "rest" }));
  return { id, known: true, computed: pack.computed_tokens, endedAt: pack.ended_at, slots };
}

function slotOf(lengths, { picture = null, kind = "image" }) {
  return { picture, kind, lengths, tokens: sum(lengths) };
}

// Tokens of each segment of a picture.
export function lengthsOf({ result: { segments, tokens } }) {
  return segments.length > 1 ? segments.map((segment) => segment.tokens) : [tokens];
}

// Tokens of all pictures: as they are, each padded to the longest, and each to its cap.
export function totalsOf(pictures) {
  const tokens = pictures.map(({ result }) => result.tokens);
  const longest = Math.max(0, ...tokens);
  return {
    tokens: sum(tokens),
    longest,
    padded: longest * pictures.length,
    // A model of one grid has no budget, and nothing to pad.
    cap: Math.max(longest, ...pictures.map(({ result }) => (result.budget === null ? 0 : result.tokenCap))),
    paddedToCap: sum(pictures.map(({ result }) => (result.budget === null ? longest : Math.max(result.tokenCap, result.tokens)))),
  };
}

export const sum = (values) => values.reduce((total, value) => total + value, 0);
