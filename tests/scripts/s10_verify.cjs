// Verifies callbacks with `standardwebhooks` from npm.
//
//     node s10_verify.cjs FOLDER SECRET < [[HEADERS, BODY], …]
//
// FOLDER holds node_modules. Each has to verify, and none with a changed body, id or time.
"use strict";

const fs = require("node:fs");
const path = require("node:path");

const [folder, secret] = process.argv.slice(2);
const { Webhook } = require(path.join(folder, "node_modules", "standardwebhooks"));
const webhook = new Webhook(secret);

function verifies(body, headers) {
  try {
    webhook.verify(body, headers);
    return true;
  } catch {
    return false;
  }
}

for (const [given, body] of JSON.parse(fs.readFileSync(0, "utf8"))) {
  const headers = Object.fromEntries(Object.entries(given).map(([name, value]) => [name.toLowerCase(), value]));
  const later = String(Number(headers["webhook-timestamp"]) + 1);
  const good = verifies(body, headers);
  const bad = [
    verifies(`${body} `, headers),
    verifies(body, { ...headers, "webhook-id": "other" }),
    verifies(body, { ...headers, "webhook-timestamp": later }),
  ];
  if (!good || bad.includes(true)) {
    console.error(`verified: ${good}; tampered with: ${bad}`, headers, body);
    process.exit(1);
  }
}
