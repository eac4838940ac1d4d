<?php
// The vendor's PHP recipe: HMAC-SHA1, the standard alphabet, percent-encoded.
// sign.php ACCESS_ID API_KEY EXPIRY PATH_AFTER_ASSETS  ->  the signed path
[, $accessId, $apiKey, $expiry, $path] = $argv;
$separator = strpos($path, '?') === false ? '?' : '&';
$string_to_sign = $path . $separator . 'expiry=' . $expiry . '&accessId=' . $accessId;
$signature = base64_encode(hash_hmac('sha1', $string_to_sign, $apiKey, true));
echo $string_to_sign . '&signature=' . urlencode($signature);
