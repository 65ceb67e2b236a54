// A list of pictures with a cosine each, the nearest first. A click on one chooses it.

import { tileElement } from "./near-tiles.js";
import { cosineOf } from "./words.js";

const TILE_SIDE = 40;

// The keyboard stays in the list: on the picture that it was on, or else on the nearest.
export function showRanking(list, entries, choose) {
  const had = list.contains(document.activeElement) ? document.activeElement.dataset.picture : null;
  list.replaceChildren(
    ...entries.map(({ picture, cosine }) => {
      const item = document.createElement("li");
      const button = Object.assign(document.createElement("button"), { type: "button" });
      const room = document.createElement("span");
      const name = document.createElement("span");
      const number = document.createElement("span");
      room.className = "near-tile";
      name.className = "near-name";
      number.className = "near-cosine";
      room.append(tileElement(picture, TILE_SIDE));
      name.textContent = picture.name;
      number.textContent = cosineOf(cosine);
      button.append(room, name, number);
      button.dataset.picture = picture.id;
      button.addEventListener("click", () => choose(picture));
      item.append(button);
      return item;
    }),
  );
  if (had !== null) (list.querySelector(`[data-picture="${had}"]`) ?? list.querySelector("button"))?.focus();
}
