// Makes thumbnails with sharp, one after the other in one process, as an image service would.
//
// node sharp_thumbnail.js PHOTO COUNT – prints the seconds on the clock and on the processor that COUNT
// thumbnails took, after one that is not counted, and how many bytes such a thumbnail has.
const fs = require("node:fs");
const sharp = require("sharp");

async function main() {
  const photo = fs.readFileSync(process.argv[2]);
  // A cache of decoded pictures would answer the second request from the first.
  sharp.cache(false);
  const once = () => sharp(photo).rotate().resize(800, 600, { fit: "inside" }).jpeg({ quality: 85 }).toBuffer();
  const { length } = await once();
  const cpu = process.cpuUsage();
  const began = process.hrtime.bigint();
  for (let n = 0; n < Number(process.argv[3]); n++) await once();
  const wall = Number(process.hrtime.bigint() - began) / 1e9;
  const { user, system } = process.cpuUsage(cpu);
  console.log(wall, (user + system) / 1e6, length);
}

main();
