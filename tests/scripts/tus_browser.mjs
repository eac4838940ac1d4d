// An upload in pieces from a page in Chromium, which is reloaded and begun anew while the server is killed.
//
//   node tus_browser.mjs BASE API_KEY FILE tus-js|uppy
//
// The page comes from this program and the upload goes to BASE: another origin, so that the browser asks the box whether
// it may (CORS) before every kind of request. Says `begins 0` or `resumes OFFSET` when a page knows where it is to send
// from, `progress BYTES` after every piece, and `asset ID` at the end. Takes orders on its input: `reload` has the page
// load itself anew whatever is on its way, `restart` ends the browser and starts it with the same profile. What a page
// knows of its predecessor is what tus-js-client and Uppy have left in `localStorage`. Everything comes from
// tests/scripts/node, and chromium from Debian. Ends with 0, or with a sentence.

import { spawn } from "node:child_process";
import fs from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import os from "node:os";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";

const packages = fileURLToPath(new URL("./node/", import.meta.url));
const { buildSync } = createRequire(packages)("esbuild");
const [base, key, file, way] = process.argv.slice(2);
const PATIENCE_MS = 120_000;

// What runs in the page; `said` is told to this program.
const COMMON = `
  const { base, key, name, way } = await (await fetch("/told")).json();
  if (new URL(base).origin === location.origin) throw new Error("the page is not of another origin");
  // Uploads wait for the network while a browser knows of none, and the loopback counts as none.
  Object.defineProperty(navigator, "onLine", { get: () => true });
  const say = (...words) => fetch("/said", { method: "POST", body: words.join(" ") });
  self.addEventListener("unhandledrejection", (event) => say("fails", event.reason));
  fetch("/order").then((order) => order.text()).then((order) => order === "reload" && location.reload());
  const bytes = await (await fetch("/file")).blob();
  const file = new File([bytes], name, { type: "application/octet-stream", lastModified: 1 });
  let asset, isNew = true;
  const options = {
    endpoint: base + "/files",
    headers: { "X-FileSpin-Api-Key": key },
    chunkSize: 1 << 20,
    retryDelays: [0, 500, 1000, 1000, 2000, 2000, 3000, 3000],
    onBeforeRequest: () => fetch("/go"),
    onAfterResponse: (request, response) => {
      asset = response.getHeader("Cloakroom-Asset-Id") ?? asset;
      const offset = response.getHeader("Upload-Offset");
      if (response.getStatus() >= 300) return;
      if (isNew) say(request.getMethod() === "HEAD" ? "resumes" : "begins", offset ?? 0);
      else if (offset) say("progress", offset);
      isNew = false;
    },
  };
`;
const WAYS = {
  "tus-js": `
    import * as tus from "tus-js-client";
    ${COMMON}
    const upload = new tus.Upload(file, {
      ...options,
      metadata: { filename: name, filetype: file.type, way },
      onError: (error) => say("fails", error),
      onSuccess: () => say("asset", asset),
    });
    const [before] = await upload.findPreviousUploads();
    if (before) upload.resumeFromPreviousUpload(before);
    upload.start();
  `,
  uppy: `
    import Uppy from "@uppy/core";
    import Tus from "@uppy/tus";
    ${COMMON}
    const uppy = new Uppy({ meta: { way } });
    uppy.use(Tus, options);
    uppy.addFile({ name, type: file.type, data: file });
    const { failed } = await uppy.upload();
    if (failed.length > 0) say("fails", failed.map((one) => one.error));
    else say("asset", asset);
  `,
};

const fail = (sentence) => {
  console.error(String(sentence));
  end(1);
};
const built = buildSync({
  stdin: { contents: WAYS[way], resolveDir: packages },
  bundle: true,
  format: "esm",
  platform: "browser",
  write: false,
  logLevel: "error",
});
const script = built.outputFiles[0].text;

// What the page waits for, and what it is to be told: whichever comes first.
let waiting, wanted;
// From an order until the next page no request may be begun: the upload would be over before the page is.
let held = false;
const tell = () => {
  if (!waiting || !wanted) return;
  waiting.end(wanted);
  waiting = wanted = undefined;
};
const answers = {
  "/": () => ["text/html", `<!doctype html><title>uploads</title><script type="module" src="/page.js"></script>`],
  "/page.js": () => ["text/javascript", script],
  "/told": () => ["application/json", JSON.stringify({ base, key, way, name: path.basename(file) })],
  "/file": () => ["application/octet-stream", fs.readFileSync(file)],
};
const server = http.createServer((request, response) => {
  if (request.url === "/order") {
    waiting = response;
    tell();
  } else if (request.url === "/go") {
    if (!held) response.writeHead(204).end();
  } else if (request.url === "/said") {
    let words = "";
    request.on("data", (more) => (words += more));
    request.on("end", () => {
      response.writeHead(204).end();
      heard(words);
    });
  } else {
    if (request.url === "/") held = false;
    const [type, body] = answers[request.url]?.() ?? ["text/plain", ""];
    response.writeHead(body ? 200 : 404, { "Content-Type": type, "Cache-Control": "no-store" }).end(body);
  }
});

let silence;
const listen = () => {
  clearTimeout(silence);
  if (ending) return;
  silence = setTimeout(() => fail(`the page said nothing for ${PATIENCE_MS / 1000} s`), PATIENCE_MS);
};
const heard = (words) => {
  listen();
  if (words.startsWith("fails")) return fail(words);
  console.log(words);
  if (words.startsWith("asset")) end(words === "asset undefined" ? 1 : 0);
};

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "tus-browser-"));
let browser;
const open = () => {
  const words = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  words.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  words.push(`--user-data-dir=${profile}`, `http://127.0.0.1:${server.address().port}/`);
  browser = spawn("chromium", words, { stdio: "ignore", detached: true });
  browser.once("error", (error) => fail(`this needs chromium: ${error.message}`));
};
// All of its processes, politely: what a page has stored is written down then. `after` is called once it is gone.
const close = (after) => {
  if (!browser?.pid || browser.exitCode !== null || browser.signalCode !== null) return after();
  browser.once("exit", after);
  browser.kill("SIGTERM");
};
let ending = false;
const end = (code) => {
  if (ending) return;
  ending = true;
  clearTimeout(silence);
  close(() => {
    try {
      process.kill(-browser.pid, "SIGKILL");
    } catch {
      // Nothing of it is left.
    }
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    process.exit(code);
  });
};

const orders = readline.createInterface({ input: process.stdin });
orders.on("line", (order) => {
  held = true;
  if (order === "reload") {
    wanted = order;
    tell();
  } else if (order === "restart") {
    waiting = undefined;
    close(open);
  }
});
// Whoever started this is gone.
orders.on("close", () => end(1));
server.listen(0, "127.0.0.1", () => {
  listen();
  open();
});
