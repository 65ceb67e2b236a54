// The panel "Take it along": code that does what the page just did.

import { parametersOf } from "./embedding.js";
import { sampleUrl } from "./samples.js";

const EXAMPLE = [{ name: "picture.jpg", sample: false }];
// More in one request would be over the server's default limit.
const MOST_IN_ONE = 64;

export function startTake(root, pictures, server) {
  const title = document.createElement("p");
  title.className = "hint";
  const blocks = [["curl", curl], ["Python", python], ["JavaScript", javascript]].map(([name, write]) => block(name, write));
  root.replaceChildren(title, ...blocks.map(({ element }) => element));
  let isOpen = false;

  const show = () => {
    if (!isOpen || !pictures.choice.strategy) return;
    const embedded = pictures.embedded;
    const files = (embedded.length ? embedded : pictures.list.length ? pictures.list : EXAMPLE).slice(0, MOST_IN_ONE);
    title.textContent = embedded.length ? "What you just did, as code." : "What Embed would do, as code.";
    if (pictures.list.length > MOST_IN_ONE) title.textContent += ` With the first ${MOST_IN_ONE} pictures: one request takes no more.`;
    if (pictures.list.some(({ sample }) => !sample)) title.textContent += " Run it in the folder of the pictures.";
    if (server.usesKey) title.textContent += " Set the variable API_KEY to your key first.";
    const asked = {
      files: files.map(({ name }) => name),
      samples: files.filter(({ sample }) => sample).map(({ name }) => name),
      samplesUrl: sampleUrl(server, "").href,
      url: server.url("embed").href,
      parameters: Object.entries(parametersOf(pictures.choice)).filter(([, value]) => value !== null),
      usesKey: server.usesKey,
    };
    for (const { code, write } of blocks) {
      const text = write(asked);
      // Unchanged code stays as it is: it may be selected.
      if (code.textContent !== text) code.textContent = text;
    }
  };
  pictures.addEventListener("change", show);
  return {
    open: () => ((isOpen = true), show()),
    close: () => (isOpen = false),
  };
}

function block(name, write) {
  const element = document.createElement("section");
  const head = document.createElement("div");
  const title = document.createElement("h2");
  const button = document.createElement("button");
  const said = document.createElement("span");
  const box = document.createElement("pre");
  const code = document.createElement("code");
  element.className = "code";
  head.className = "code-head";
  title.textContent = name;
  Object.assign(button, { type: "button", className: "quiet", textContent: "Copy" });
  button.setAttribute("aria-label", `Copy the ${name} code`);
  said.setAttribute("role", "status");
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", `${name} code`);
  box.append(code);
  head.append(title, said, button);
  element.append(head, box);
  button.addEventListener("click", async () => {
    said.textContent = (await copy(code)) ? "Copied" : "Selected: press Ctrl+C or ⌘C";
  });
  return { element, code, write };
}

// Whether the code is on the clipboard. A page on plain HTTP has no clipboard API; where the older way fails too, the
// code is left selected.
async function copy(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}

function curl({ files, samples, samplesUrl, url, parameters, usesKey }) {
  const lines = samples.map((name) => `curl -sSO ${shell(samplesUrl + name)}`);
  const call = [
    `curl -sS ${shell(url)}`,
    ...(usesKey ? ['-H "Authorization: Bearer $API_KEY"'] : []),
    ...parameters.map(([name, value]) => `-F ${name}=${value}`),
    ...files.map((name) => `-F ${shell(`image=@"${name.replace(/[\\"]/g, "\\$&")}"`)}`),
  ];
  return [...lines, call.join(" \\\n  ")].join("\n");
}

function python({ files, samples, samplesUrl, url, parameters, usesKey }) {
  const lines = ["import numpy as np", "import requests", ""];
  if (usesKey) lines.splice(0, 0, "import os", "");
  lines.push(`names = [${files.map(text).join(", ")}]`);
  if (samples.length) {
    // Of the samples alone: a picture of the user must not be overwritten.
    lines.push(
      `for name in [${samples.map(text).join(", ")}]:`,
      '    with open(name, "wb") as file:',
      `        file.write(requests.get(${text(samplesUrl)} + name).content)`,
      "",
    );
  }
  lines.push(
    "answer = requests.post(",
    `    ${text(url)},`,
    ...(usesKey ? ['    headers={"Authorization": f"Bearer {os.environ[\'API_KEY\']}"},'] : []),
    `    data={${parameters.map(([name, value]) => `${text(name)}: ${JSON.stringify(value)}`).join(", ")}},`,
    '    files=[("image", open(name, "rb")) for name in names],',
    ")",
    "answer.raise_for_status()",
    'vectors = np.array([item["embedding"] for item in answer.json()["data"]], dtype=np.float32)',
    "print(vectors.shape)",
  );
  return lines.join("\n");
}

function javascript({ files, samples, samplesUrl, url, parameters, usesKey }) {
  const lines = [
    `import { readFile${samples.length ? ", writeFile" : ""} } from "node:fs/promises";`,
    "",
    `const names = [${files.map(text).join(", ")}];`,
    ...(samples.length
      ? [
          `for (const name of [${samples.map(text).join(", ")}]) {`,
          `  const sample = await fetch(${text(samplesUrl)} + name);`,
          "  await writeFile(name, Buffer.from(await sample.arrayBuffer()));",
          "}",
          "",
        ]
      : []),
    "const form = new FormData();",
    ...parameters.map(([name, value]) => `form.append(${text(name)}, ${text(`${value}`)});`),
    'for (const name of names) form.append("image", new Blob([await readFile(name)]), name);',
    `const answer = await fetch(${text(url)}, {`,
    '  method: "POST",',
    ...(usesKey ? ["  headers: { Authorization: `Bearer ${process.env.API_KEY}` },"] : []),
    "  body: form,",
    "});",
    "if (!answer.ok) throw new Error(await answer.text());",
    "const { data } = await answer.json();",
    "console.log(data.map((item) => [item.tokens, item.embedding.slice(0, 4)]));",
  ];
  return lines.join("\n");
}

// A string of Python and JavaScript, and a word of the shell.
const text = (value) => JSON.stringify(value);
const shell = (value) => (/^[\w@%+=:,./-]+$/.test(value) ? value : `'${value.replaceAll("'", "'\\''")}'`);
