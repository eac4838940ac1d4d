// The recipe as Node and Java have it: HMAC-SHA1, the standard alphabet, percent-encoded.
// sign.js ACCESS_ID API_KEY EXPIRY PATH_AFTER_ASSETS  ->  the signed path
const crypto = require("crypto");

const [accessId, apiKey, expiry, path] = process.argv.slice(2);
const stringToSign = `${path}${path.includes("?") ? "&" : "?"}expiry=${expiry}&accessId=${accessId}`;
const signature = crypto.createHmac("sha1", apiKey).update(stringToSign).digest("base64");
process.stdout.write(`${stringToSign}&signature=${encodeURIComponent(signature)}`);
