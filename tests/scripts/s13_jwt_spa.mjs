// Script S13: a single-page application that logs in, with axios.
//
//   node s13_jwt_spa.mjs BASE API_KEY EMAIL PASSWORD
//
// axios comes from tests/scripts/node. Ends with 0, or with a sentence that says what went wrong.

import { createRequire } from "node:module";

const axios = createRequire(new URL("./node/", import.meta.url))("axios");
const [base, key, email, password] = process.argv.slice(2);
const check = (holds, sentence) => {
  if (!holds) {
    console.error(sentence);
    process.exit(1);
  }
};

const api = axios.create({ baseURL: `${base}/api/v1` });
const { data: session } = await api.post("/login", { email, password });
check(session.jwt && session.role_name === "ADMIN" && session.uploadkey, JSON.stringify(session));
api.interceptors.request.use((config) => {
  config.headers.Authorization = `Bearer ${session.jwt}`;
  return config;
});

const form = new FormData();
form.append("file", new Blob(["content"], { type: "text/plain" }), "a.txt");
const { data: uploaded } = await api.post("/assets/new/content/original/upload", form);
const id = uploaded.files[0].id;
const { data: asset } = await api.get(`/assets/${id}/data`);
check(asset.id === id && asset.creator_id === session.user_id, JSON.stringify(asset));

check((await api.get("/auth/validate")).status === 200, "a token in the header");
const bare = axios.create({ baseURL: `${base}/api/v1`, validateStatus: () => true });
const validated = async (token) => (await bare.get("/auth/validate", { params: { _jwt: token } })).status;
check((await validated(session.jwt)) === 200, "a token in the query");
check((await validated("garbage")) === 401, "garbage");
// A server that asks about its visitors' tokens sends its own key with every call.
const server = axios.create({ ...bare.defaults, headers: { "X-FileSpin-Api-Key": key } });
const asked = async (token) => (await server.get("/auth/validate", { params: { _jwt: token } })).status;
check((await asked(session.jwt)) === 200 && (await asked("garbage")) === 401, "the token is asked about, not the key");

const refused = await bare.post("/login", { email, password: "wrong" });
check(refused.status === 401 && refused.data.status === "ERROR", JSON.stringify(refused.data));

// The picker's call, as the widget makes it from a page.
const page = await bare.post("/upload", form, {
  params: { upload_key: session.uploadkey, picker_host: "shop.example" },
  headers: { Origin: "https://shop.example" },
});
check(page.status === 200 && page.data.files[0].id, JSON.stringify(page.data));
check(page.headers["access-control-allow-origin"] === "https://shop.example", "the page may read the answer");
const read = await bare.get(`/assets/${page.data.files[0].id}/data`, { params: { upload_key: session.uploadkey } });
check(read.status === 401, "an upload key reads nothing");
