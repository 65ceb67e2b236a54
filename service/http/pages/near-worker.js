// A worker: cosines and places on the map, for a few hundred vectors, without holding the page.

import { cosinesOf, project } from "./near-geometry.js";

addEventListener("message", ({ data: { round, vectors, count } }) => {
  const cosines = cosinesOf(vectors, count);
  const { points, share } = project(cosines, count);
  postMessage({ round, cosines, points, share }, [cosines.buffer, points.buffer]);
});
