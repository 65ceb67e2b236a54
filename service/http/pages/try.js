// The panel "Try": pictures come in, each with its patch grid at the chosen budget, and Embed sends them.

import { Compare } from "./compare.js";
import { enable, onPress, show as showOrHide } from "./controls.js";
import { foldersOf, picturesIn } from "./dropped.js";
import { embedAll } from "./embedding.js";
import { Gallery } from "./gallery.js";
import { MOST_PICTURES } from "./pictures.js";
import { addSamples } from "./samples.js";
import { count, failuresOf, number, STRATEGIES } from "./words.js";

const LOWEST_BUDGET = 64;

export function startTry(root, pictures, server) {
  const find = (id) => root.querySelector(`#${id}`);
  const compare = new Compare(find("compare"), pictures);
  const gallery = new Gallery(find("gallery"), pictures, () => compare.reveal());
  takeFiles(find, pictures, server);
  startBudget(find, pictures, server);
  startStrategies(find, pictures, server);
  startEmbedding(find, pictures, server);
  startRemoving(find, pictures);
  return {
    open: () => [gallery, compare].forEach((part) => part.draw()),
    showTotals: (totals, problem) => showTotals(find, totals, problem, pictures),
  };
}

// Choosing, dropping and pasting, anywhere on the page.
function takeFiles(find, pictures, server) {
  const field = find("files");
  find("choose").addEventListener("click", () => field.click());
  field.addEventListener("change", () => {
    pictures.add([...field.files]);
    // The same file can be chosen again.
    field.value = "";
  });
  find("samples").addEventListener("click", () => addSamples(pictures, server));
  const addFolders = async (folders, dropped) => {
    // Each folder is among the files too, as one that cannot be read.
    const names = new Set(folders.map(({ name }) => name));
    const files = [...dropped.filter(({ name }) => !names.has(name)), ...(await picturesIn(folders))];
    if (files.length) pictures.add(files);
    else find("left-out").textContent = "There is no picture in what you dropped.";
  };
  const bringsFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    find("drop").classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) find("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!bringsFiles(event)) return;
    event.preventDefault();
    find("drop").classList.remove("over");
    const { dataTransfer } = event;
    const folders = foldersOf(dataTransfer);
    if (!folders.length) pictures.add([...dataTransfer.files]);
    else addFolders(folders, [...dataTransfer.files]);
  });
  document.addEventListener("paste", ({ clipboardData }) => {
    if (clipboardData?.files.length) pictures.add([...clipboardData.files]);
  });
}

// Whoever removes one too many can have it back, with its vector.
function startRemoving(find, pictures) {
  const [clear, undo] = [find("clear"), find("undo")];
  onPress(clear, () => pictures.clear());
  onPress(undo, () => pictures.restore());
  const update = () => {
    enable(clear, pictures.list.length > 0);
    if (pictures.removed) undo.textContent = `Bring back ${count(pictures.removed, "picture")}`;
    showOrHide(undo, pictures.removed > 0, clear);
  };
  pictures.addEventListener("change", update);
  update();
}

// The slider and the number beside it. A model of one grid takes no budget, and both say so.
function startBudget(find, pictures, server) {
  const fields = [find("budget"), find("budget-number")];
  // A screen reader would say the slider's number alone.
  const say = (budget) => fields[0].setAttribute("aria-valuetext", count(budget, "token"));
  const show = (budget) => {
    for (const field of fields) field.value = budget;
    say(budget);
  };
  let least = 1;
  for (const field of fields) {
    field.addEventListener("input", () => {
      const { max } = fields[0];
      const budget = Math.round(Number(field.value));
      // While a number is typed it may be none yet.
      if (!(budget >= least && budget <= max)) return;
      for (const other of fields) if (other !== field) other.value = budget;
      say(budget);
      pictures.choose({ budget });
    });
    field.addEventListener("change", () => show(pictures.choice.budget));
  }
  server.addEventListener("info", () => {
    const { limits, model } = server.info;
    const isFixed = model.geometry.fixed !== null;
    const most = limits.max_image_tokens;
    // A model with budgets of its own takes no picture below the first.
    const { budgets } = model.geometry;
    least = budgets[0] ?? 1;
    for (const field of fields) {
      field.min = budgets[0] ?? Math.min(LOWEST_BUDGET, most);
      field.max = most;
      field.disabled = isFixed;
    }
    const kept = Math.max(least, Math.min(pictures.choice.budget ?? limits.default_max_tokens, most));
    show(isFixed ? limits.default_max_tokens : kept);
    if (isFixed) {
      find("budget-hint").textContent =
        `This model has one grid: every square is ${count(model.default_max_tokens, "patch", "patches")}, whatever the ` +
        "picture, so there is no budget to choose.";
    } else if (budgets.length) {
      find("budget-hint").textContent =
        `This model was trained on budgets of ${budgets.filter((budget) => budget <= most).map(number).join(", ")} patches. A picture gets the largest of ` +
        "them within yours.";
    }
    pictures.choose({ budget: isFixed ? null : kept });
  });
}

function startStrategies(find, pictures, server) {
  const show = () => {
    const { strategy } = pictures.choice;
    find("strategy-hint").textContent = STRATEGIES[strategy] ?? "";
  };
  server.addEventListener("info", () => {
    const { strategies } = server.info;
    const chosen = strategies.includes(pictures.choice.strategy) ? pictures.choice.strategy : strategies[0];
    const shown = [...find("strategies").querySelectorAll("input")].map(({ value }) => value);
    // Those that stay keep the keyboard.
    if (`${shown}` !== `${strategies}`) find("strategies").replaceChildren(
      ...strategies.map((name) => {
        const field = Object.assign(document.createElement("input"), {
          type: "radio", name: "strategy", value: name, checked: name === chosen,
        });
        field.addEventListener("change", () => {
          pictures.choose({ strategy: name });
          show();
        });
        const label = document.createElement("label");
        label.append(field, Object.assign(document.createElement("span"), { textContent: name }));
        return label;
      }),
    );
    pictures.choose({ strategy: chosen });
    show();
  });
}

function startEmbedding(find, pictures, server) {
  const button = find("embed");
  const stop = find("stop");
  let running = null;

  const show = () => {
    const left = pictures.list.length - pictures.embedded.length;
    enable(button, running === null && left > 0 && Boolean(pictures.choice.strategy));
    button.textContent = left || !pictures.list.length ? `Embed ${left ? count(left, "picture") : "pictures"}` : "Embedded";
    showOrHide(stop, running !== null, button);
    find("left-out").textContent = pictures.leftOut
      ? `${count(pictures.leftOut, "picture")} left out: the page holds ${number(MOST_PICTURES)} at a time. ` +
        "The command packlight embed takes whole folders."
      : "";
  };
  onPress(button, async () => {
    running = new AbortController();
    show();
    await embedAll(pictures, server, running.signal);
    running = null;
    show();
    find("said").textContent = [`${count(pictures.embedded.length, "picture")} embedded.`, ...failuresOf(pictures.list)].join(" ");
  });
  stop.addEventListener("click", () => running?.abort());
  pictures.addEventListener("change", show);
  show();
}

// What all pictures take together, and what they would take as squares.
function showTotals(find, totals, problem, pictures) {
  const line = find("totals");
  if (problem) line.textContent = `The server did not plan this: ${problem}.`;
  else if (!totals?.images) line.textContent = "";
  else {
    const { images, tokens, fixed_square: square } = totals;
    const budget = pictures.choice.budget;
    const padded = budget && images * budget > tokens ? `, ${number(images * budget)} if each were padded to the budget` : "";
    line.textContent = `${count(images, "picture")}: ${count(tokens, "token")}${padded}`;
    line.title = `As squares: ${count(square, "token")}`;
  }
}
