// S11: a gallery as a published client has it, with axios: describe an asset, search for it, turn the page, show it.
//
//     node s11_gallery.js BASE API_KEY
//
// Nothing in here knows Cloakroom. It ends with 0, or with a sentence that says what went wrong.
"use strict";

const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const axios = require("axios");
const FormData = require("form-data");

const [base, apiKey] = process.argv.slice(2);
const api = axios.create({ baseURL: `${base}/api/v1`, headers: { "X-FileSpin-Api-Key": apiKey } });

function check(holds, otherwise) {
    if (!holds) throw new Error(otherwise);
}

/** Makes a picture and uploads it; its id, once it may be used. */
async function upload(folder, name, width, height, seed) {
    const file = path.join(folder, name);
    execFileSync("/usr/bin/python3", [path.join(__dirname, "picture.py"), file, width, height, seed].map(String));
    const form = new FormData();
    form.append("file", fs.createReadStream(file));
    const { data } = await api.post("/assets/new/content/original/upload", form, { headers: form.getHeaders() });
    const { id } = data.files[0];
    for (let tries = 0; tries < 120; tries++) {
        if ((await api.get(`/assets/${id}/data`)).data.status === "OK") return id;
        await new Promise((resolve) => setTimeout(resolve, 250));
    }
    throw new Error(`${name} did not become OK`);
}

async function main() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "s11-"));
    try {
        const ids = [];
        for (let n = 0; n < 3; n++) ids.push(await upload(folder, `gallery-${n}.jpg`, 640 + n, 480, n + 1));

        for (const id of ids) {
            const body = { data: { filespin_search_txt: `MY_ID holiday` }, mode: "APPEND" };
            const told = await api.post(`/assets/${id}/data/update`, body);
            check([200, 202].includes(told.status), `the update is answered ${told.status}`);
        }
        await api.post(`/assets/${ids[1]}/data/update`, { data: { filespin_search_txt: "ONLY_THIS" }, mode: "APPEND" });

        const one = (await api.post("/search", { keyword: "ONLY_THIS" })).data;
        check(Array.isArray(one.result) && one.result.includes(ids[1]), `not found: ${JSON.stringify(one)}`);
        check(one.result.every((id) => typeof id === "string"), "the result is not a list of ids");
        console.log("what was written with the asset finds it");

        const first = (await api.post("/search", { keyword: "MY_ID", limit_per_page: 1 })).data;
        check(first.result.length === 1 && first.total_pages === 2, `first page: ${JSON.stringify(first)}`);
        const second = (await api.get(`/search/${first.search_result_id}/2`)).data;
        const both = [...first.result, ...second.result].sort();
        check(both.join() === [ids[0], ids[2]].sort().join(), `both pages together: ${both}`);
        console.log("the second page follows the first");

        // What published clients post, too.
        const any = (await api.post("/search", { page: 2, filters: {} })).data;
        check(ids.every((id) => any.result.includes(id)), "keys that are not known are not ignored");

        for (const url of [`${base}/api/v1/conversion/${ids[0]}?resize=500,600`, `${base}/api/v1/conversion/${ids[0]}`]) {
            const image = await axios.get(url, { responseType: "arraybuffer" });
            check(image.status === 200 && image.headers["content-type"].startsWith("image/"), `${url}: no picture`);
        }
        console.log("the old address of a picture shows it");

        const refused = await api.post("/search", { keyword: "a AND b OR c" }, { validateStatus: () => true });
        check(refused.status === 400 && refused.data.status === "ERROR", `mixed operators are answered ${refused.status}`);
        console.log("S11: all promises kept");
    } finally {
        fs.rmSync(folder, { recursive: true });
    }
}

main().catch((error) => {
    const answer = error.response ? ` ${error.response.status} ${JSON.stringify(error.response.data)}` : "";
    console.error(`S11: ${error.message}${answer}`);
    process.exit(1);
});
