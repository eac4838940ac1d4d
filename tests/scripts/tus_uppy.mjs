// An upload in pieces with Uppy, while the server is killed.
//
//   node tus_uppy.mjs BASE API_KEY FILE
//
// Says `progress BYTES` after every piece, does nothing until a line comes on its input, and says `asset ID` at the end.
// Uppy remembers nothing outside of a browser, so this program must not be killed. Uppy comes from tests/scripts/node.
// Ends with 0, or with a sentence.

import fs from "node:fs";
import path from "node:path";

const from = (name) => import(new URL(`./node/node_modules/${name}/lib/index.js`, import.meta.url));
const [{ default: Uppy }, { default: Tus }] = await Promise.all([from("@uppy/core"), from("@uppy/tus")]);
const [base, key, file] = process.argv.slice(2);

let asset;
const uppy = new Uppy({ meta: { way: "uppy" } });
uppy.use(Tus, {
  endpoint: `${base}/files`,
  headers: { "X-FileSpin-Api-Key": key },
  chunkSize: 1 << 20,
  retryDelays: [0, 500, 1000, 1000, 2000, 2000, 3000, 3000],
  onAfterResponse: (_, response) => {
    asset = response.getHeader("Cloakroom-Asset-Id") ?? asset;
    const offset = response.getHeader("Upload-Offset");
    if (!offset) return;
    console.log(`progress ${offset}`);
    // Whoever reads it decides what happens next, so nothing may happen before.
    fs.readSync(0, Buffer.alloc(1));
  },
});
uppy.addFile({ name: path.basename(file), type: "application/octet-stream", data: fs.readFileSync(file) });
const { failed } = await uppy.upload();
if (failed.length > 0 || !asset) {
  console.error(`the upload failed: ${failed.map((one) => one.error)}`);
  process.exit(1);
}
console.log(`asset ${asset}`);
