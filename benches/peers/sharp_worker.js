// Makes pictures with sharp on command, in one warm process with one thread, as a careful image service would.
//
// node sharp_worker.js – reads one JSON a line: {path, out, width, height, format, options}; renders into `out` and
// answers {wall_s, cpu_s, peak_mib}, or {error}. The file is read anew each time and no cache is kept, as for us.
//
// node sharp_worker.js --serve PORT FOLDER – answers GET /NAME?format=… with a crop of 512 × 512, for load from outside.
const fs = require("node:fs");
const http = require("node:http");
const readline = require("node:readline");
const sharp = require("sharp");

// A cache of decoded pictures would answer the second request from the first.
sharp.cache(false);

async function work() {
  sharp.concurrency(1);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { path, out, width, height, format, options } = JSON.parse(line);
    const cpu = process.cpuUsage();
    const began = process.hrtime.bigint();
    let said;
    try {
      const picture = await sharp(fs.readFileSync(path))
        .rotate()
        .resize(width, height, { fit: "inside", withoutEnlargement: true })
        .toFormat(format, options)
        .toBuffer();
      const wall_s = Number(process.hrtime.bigint() - began) / 1e9;
      const { user, system } = process.cpuUsage(cpu);
      fs.writeFileSync(out, picture);
      said = { wall_s, cpu_s: (user + system) / 1e6, peak_mib: process.resourceUsage().maxRSS / 1024 };
    } catch (error) {
      said = { error: String(error.message) };
    }
    console.log(JSON.stringify(said));
  }
}

function serve(port, folder) {
  const server = http.createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, "http://localhost");
    const format = searchParams.get("format");
    try {
      const picture = await sharp(`${folder}/${pathname.slice(1)}`)
        .rotate()
        .resize(512, 512, { fit: "cover" })
        .toFormat(format, format === "jpeg" ? { quality: 85 } : {})
        .toBuffer();
      response.writeHead(200, { "Content-Type": `image/${format}`, "Content-Length": picture.length }).end(picture);
    } catch (error) {
      response.writeHead(500).end(String(error.message));
    }
  });
  server.listen(Number(port), "127.0.0.1");
}

if (process.argv[2] === "--serve") serve(process.argv[3], process.argv[4]);
else work();
