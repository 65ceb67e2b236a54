// undici: node ask.cjs URL PHOTO BIG. One line for each answer: name, status, body.

const fs = require("node:fs");
const { Readable } = require("node:stream");
const { Agent, Client, FormData, fetch } = require("undici");
const { Blob } = require("node:buffer");

const [url, photoFile, bigFile] = process.argv.slice(2);
const photo = fs.readFileSync(photoFile);
const big = fs.readFileSync(bigFile);
const { origin, pathname, search } = new URL(url);

async function main() {
  const client = new Client(origin);
  const ask = async (name, method, path, type, body) => {
    const answer = await client.request({ method, path, headers: { "content-type": type }, body });
    console.log(name, answer.statusCode, await answer.body.text());
  };
  const json = JSON.stringify({ images: [`data:image/jpeg;base64,${photo.toString("base64")}`] });
  await ask("photo", "POST", pathname + search, "image/jpeg", photo);
  await ask("photo", "POST", pathname + search, "application/json", json);
  await ask("big", "POST", pathname + search, "image/bmp", big);
  await ask("big", "POST", pathname + search, "image/bmp", Readable.from([big.subarray(0, 1e6), big.subarray(1e6)]));
  await ask("livez", "GET", "/livez", "text/plain", null);
  await ask("head", "HEAD", "/livez", "text/plain", null);
  await client.close();

  const dispatcher = new Agent({ connections: 1 });
  for (const [name, image, type] of [["photo", photo, "image/jpeg"], ["big", big, "image/bmp"]]) {
    const form = new FormData();
    form.set("image", new Blob([image], { type }), "a");
    const answer = await fetch(url, { method: "POST", body: form, dispatcher });
    console.log(name, answer.status, await answer.text());
  }
}

main();
