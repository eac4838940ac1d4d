<?php
// The requests of Prepr's PHP SDK, made by the client library that it makes them with.
//
//     php ps3_prepr_sdk.php BASE API_KEY
//
// The SDK is a thin layer over Guzzle: every POST is multipart with flattened names, everything else a form,
// and the token is the whole Authorization header. A file above 25 MiB is announced, sent in pieces of 25 MiB
// of one stream, and ended; all earlier parameters are repeated each time, the last piece with the end, too.
// The loop runs once too often when the size is a multiple of the piece, which sends an empty one.
require '/usr/share/php/GuzzleHttp/autoload.php';

use GuzzleHttp\Client;
use GuzzleHttp\Psr7\LimitStream;
use GuzzleHttp\Psr7\Utils;

const PIECE = 26214400;

[, $base, $key] = $argv;
$base .= '/';

function check(bool $holds, string $what): void
{
    if (!$holds) {
        fwrite(STDERR, "$what\n");
        exit(1);
    }
}

function call(string $method, string $path, array $options): array
{
    global $base, $key;
    $client = new Client([
        'http_errors' => false,
        'headers' => ['Accept' => 'application/json', 'Content-Type' => 'application/json', 'Authorization' => $key],
    ]);
    $answer = $client->request($method, $base . $path, $options);
    return [$answer->getStatusCode(), json_decode($answer->getBody()->getContents(), true)];
}

function post(string $path, array $parameters): array
{
    $parts = [];
    foreach (flat($parameters) as $name => $contents) {
        $parts[] = ['name' => $name, 'contents' => $contents];
    }
    return call('post', $path, ['multipart' => $parts]);
}

function flat(array $parameters, string $inside = ''): array
{
    $flat = [];
    foreach ($parameters as $name => $value) {
        $full = $inside === '' ? (string) $name : "{$inside}[{$name}]";
        $flat += is_array($value) ? flat($value, $full) : [$full => $value];
    }
    return $flat;
}

function upload(string $path, array $parameters): array
{
    $file = fopen($path, 'r');
    $size = filesize($path);
    if ($size / PIECE <= 1) {
        return post('assets', $parameters + ['source' => $file]);
    }
    $parameters += ['upload_phase' => 'start', 'file_size' => $size];
    [$status, $asset] = post('assets', $parameters);
    check($status === 201 || $status === 200, "start: $status");
    // A stream that is let go of closes the file that the others read, too.
    $streams = [];
    for ($n = 0; $n <= $size / PIECE; $n++) {
        $offset = PIECE * $n;
        $length = $offset + PIECE > $size ? $size - $offset : PIECE;
        $parameters['upload_phase'] = 'transfer';
        $streams[] = $stream = new LimitStream(Utils::streamFor($file), $length, $offset);
        $parameters['file_chunk'] = $stream;
        [$status, $said] = post("assets/{$asset['id']}/multipart", $parameters);
        check($status === 200, "transfer $n: $status " . json_encode($said));
    }
    $parameters['upload_phase'] = 'finish';
    return post("assets/{$asset['id']}/multipart", $parameters);
}

/** As the SDK turns pages: by offset, until one is short. */
function allPages(string $path): array
{
    $items = [];
    for ($page = 0; ; $page++) {
        $query = http_build_query(['limit' => 100, 'offset' => $page * 100]);
        [$status, $answer] = call('get', "$path?$query", ['form_params' => []]);
        check($status === 200, "page $page: $status");
        array_push($items, ...$answer['items']);
        if (count($answer['items']) !== 100) {
            return $items;
        }
    }
}

$folder = sys_get_temp_dir() . '/cloakroom-' . bin2hex(random_bytes(6));
mkdir($folder);
register_shutdown_function(function () use ($folder) {
    array_map('unlink', glob("$folder/*"));
    rmdir($folder);
});

$made = [];
foreach (['small.txt' => 1 << 20, 'large.txt' => 60 << 20, 'exact.txt' => 52428800] as $name => $size) {
    $path = "$folder/$name";
    $line = str_repeat("words of $name ", 64) . "\n";
    file_put_contents($path, substr(str_repeat($line, intdiv($size, strlen($line)) + 1), 0, $size));
    [$status, $asset] = upload($path, ['body' => 'Example', 'tags' => ['items' => [['body' => 'Script']]]]);
    check($status === ($size > PIECE ? 200 : 201), "$name: $status " . json_encode($asset));
    check($asset['body'] === 'Example' && $asset['original_name'] === $name, "$name: " . json_encode($asset));
    $plain = str_replace('-', '', $asset['id']);
    $data = call('get', "api/v1/assets/$plain/data", ['headers' => ['Authorization' => null, 'X-FileSpin-Api-Key' => $key]]);
    check($data[0] === 200 && $data[1]['size'] === $size, "$name: " . json_encode($data));
    check($data[1]['checksum'] === md5_file($path), "$name came in as other bytes");
    $made[] = $asset['id'];
}

[$status, $asset] = call('put', "assets/{$made[0]}", ['form_params' => ['name' => 'Renamed', 'tags' => ['items' => [['body' => 'One'], ['body' => 'Two']]]]]);
check($status === 200 && $asset['name'] === 'Renamed', "put: $status " . json_encode($asset));
[$status, $asset] = call('get', "assets/{$made[0]}?fields=tags", ['form_params' => []]);
check(array_column($asset['tags']['items'], 'body') === ['One', 'Two'], 'tags: ' . json_encode($asset));

for ($n = 0; $n < 120; $n++) {
    file_put_contents("$folder/n.txt", "number $n");
    [$status] = upload("$folder/n.txt", ['body' => 'Page']);
    check($status === 201, "upload $n: $status");
}
$listed = array_column(allPages('assets'), 'id');
check(count($listed) === 123 && count(array_unique($listed)) === 123, count($listed) . ' assets are listed instead of 123');
check(array_diff($made, $listed) === [], 'some are not listed');

[$status] = call('delete', "assets/{$made[0]}", ['form_params' => []]);
check($status === 204, "delete: $status");
