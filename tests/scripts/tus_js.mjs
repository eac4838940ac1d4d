// Uploads in pieces with tus-js-client, which is killed and started again as often as somebody likes.
//
//   node tus_js.mjs BASE API_KEY FILE STATE_FILE [pieces|stream|parallel]
//
// Says `progress BYTES` after every piece, does nothing until a line comes on its input, and says `asset ID` at the end.
// A further start with the same state goes on where the last one was. tus-js-client comes from tests/scripts/node. Ends
// with 0, or with a sentence.

import fs from "node:fs";
import path from "node:path";
import { createRequire } from "node:module";

const tus = createRequire(new URL("./node/", import.meta.url))("tus-js-client");
const [base, key, file, state, way = "pieces"] = process.argv.slice(2);
const fail = (error) => {
  console.error(String(error));
  process.exit(1);
};

// Whoever reads it decides what happens next, so nothing may happen before.
const progress = (bytes) => {
  console.log(`progress ${bytes}`);
  fs.readSync(0, Buffer.alloc(1));
};
let asset;
const ways = {
  pieces: { chunkSize: 1 << 20 },
  stream: {},
  parallel: { parallelUploads: 3 },
};
const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint: `${base}/files`,
  headers: { "X-FileSpin-Api-Key": key },
  retryDelays: [0, 500, 1000, 1000, 2000, 2000, 3000, 3000],
  metadata: { filename: path.basename(file), filetype: "application/octet-stream", way },
  urlStorage: new tus.FileUrlStorage(state),
  ...ways[way],
  onProgress: (sent) => way === "stream" && progress(sent),
  onChunkComplete: (_, accepted) => progress(accepted),
  onAfterResponse: (_, response) => {
    asset = response.getHeader("Cloakroom-Asset-Id") ?? asset;
  },
  onError: fail,
  onSuccess: () => {
    if (!asset) fail("no answer named the asset");
    console.log(`asset ${asset}`);
  },
});
const [before] = await upload.findPreviousUploads();
if (before) {
  console.log("resumes");
  upload.resumeFromPreviousUpload(before);
}
upload.start();
