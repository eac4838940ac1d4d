// The server of those who wrote the tus protocol, as its manual has it: files in a folder, nothing added.
//
//   node tus_server.mjs PACKAGES PORT FOLDER – takes uploads at /files; PACKAGES is where npm has put `@tus/server`.
//
// It keeps what came and what it knows of an upload in two files. It neither hashes nor flushes.

import { createRequire } from "node:module";

const [packages, port, folder] = process.argv.slice(2);
const from = createRequire(`${packages}/`);
const { Server } = await import(from.resolve("@tus/server"));
const { FileStore } = await import(from.resolve("@tus/file-store"));

const server = new Server({ path: "/files", datastore: new FileStore({ directory: folder }) });
server.listen({ host: "127.0.0.1", port: Number(port) });
