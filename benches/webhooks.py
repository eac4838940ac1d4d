#!/usr/bin/python3
"""Callbacks: how many a second, and how soon, while some receivers hang.

    webhooks.py [BINARY] [--assets 200] [--changes 60] [--quick]

Receivers are paths of one small server in a process of its own; those that hang take a request and say nothing.
Throughput: assets are uploaded while nobody is told, then `reissue` tells all at once; what counts is from the first
callback that arrives to the last. Latency: from the answer to a change (an upload; an update of data) to the first byte
at a receiver, one change at a time; an upload's file is looked at in between, which is part of the figure. At the end
uploads are timed while nobody, and while everybody, is told.
"""

import asyncio
import datetime
import http.client
import json
import multiprocessing
import os
import time

import bench
from bench import API_KEY
from bench import post_file

EVENTS = ["file-saved", "file-processed", "file-data-updated", "file-deleted", "file-undeleted", "addon-processed"]


def main():
    parser = bench.arguments(__doc__, assets=200, changes=60)
    options = parser.parse_args()
    if options.quick:
        options.assets, options.changes = 40, 20
    os.environ["CLOAKROOM_NET__ALLOW"] = "127.0.0.0/8"
    os.environ["CLOAKROOM_LOG"] = "error"
    rows = []
    for receivers, hanging in ((1, 0), (3, 0), (3, 1), (20, 0), (20, 5)):
        os.environ["CLOAKROOM_WEBHOOKS__MAX_URLS"] = str(receivers)
        rows.append([f"{receivers} receivers, {hanging} hang", *one_case(options, receivers, hanging)])
    print(f"{options.assets} assets told again at once; {options.changes} changes one at a time, in ms\n")
    bench.table(
        [
            "",
            "callbacks/s",
            "update p50",
            "update p99",
            "upload → first byte p50",
            "p99",
            "upload alone p50",
            "p99",
            "upload told p50",
            "p99",
        ],
        rows,
    )


def one_case(options, receivers, hanging):
    ours, theirs = multiprocessing.Pipe()
    listening = multiprocessing.Process(target=listen, args=(theirs,), daemon=True)
    listening.start()
    port = ours.recv()
    urls = [f"http://127.0.0.1:{port}/{'hang' if n < hanging else 'take'}/{n}" for n in range(receivers)]
    with bench.Workplace() as place:
        appliance = place.appliance(options.binary)
        connection = appliance.connect()
        began = datetime.datetime.fromtimestamp(time.time() - 1, datetime.timezone.utc)
        ids, alone = [], []
        for number in range(options.assets):
            at = time.monotonic()
            ids.append(upload(connection, number))
            alone.append(time.monotonic() - at)
        wait_until_saved(connection, ids[-1])
        bench.settle(appliance.process.pid)
        value = {"web_urls": urls, "callback_events": dict.fromkeys(EVENTS, False) | {"file-saved": True}}
        value["callback_events"]["file-data-updated"] = True
        ask(connection, "PATCH", "/api/v1/user/settings/update", {"key": "webhook", "value": value})

        span = {"start_date": stamp(began), "end_date": stamp(began + datetime.timedelta(days=6))}
        ask(connection, "POST", "/api/v1/callbacks/reissue", span)
        taken = [at for at, path, *_ in collect(ours, options.assets * (receivers - hanging))]
        per_second = (len(taken) - 1) / (max(taken) - min(taken))

        updates = latencies(ours, options.changes, receivers - hanging, lambda n: update(connection, ids[n], n))
        uploads, told = [], []
        for number in range(options.changes):
            at = time.monotonic()
            asset = upload(connection, options.assets + number)
            answered = time.monotonic()
            told.append(answered - at)
            first = min(when for when, _, _, who in collect(ours, receivers - hanging) if who == asset)
            uploads.append(first - answered)
        connection.close()
    listening.terminate()
    listening.join()
    spans = []
    for values in (updates, uploads, alone, told):
        spans += [bench.median(values) * 1000, bench.percentile(values, 0.99) * 1000] if values else ["–", "–"]
    return per_second, *spans


def latencies(ours, count, takers, change):
    """From the answer to a change to the first byte at any receiver."""
    found = []
    for number in range(count):
        asset = change(number)
        if asset is None:
            return []
        answered = time.monotonic()
        first = min(when for when, _, _, who in collect(ours, takers) if who == asset)
        found.append(first - answered)
    return found


def update(connection, asset, number):
    status, _ = ask(connection, "POST", f"/api/v1/assets/{asset}/data/update", {"data": {"n": number}}, any_answer=True)
    return asset if status == 200 else None


def upload(connection, number):
    status, answer = post_file(connection, f"{number}.bin", f"no picture, number {number}".encode() * 50)
    if status != 200:
        raise SystemExit(f"an upload was answered {status}: {answer[:200]}")
    return json.loads(answer)["assets"][0]["id"]


def wait_until_saved(connection, asset):
    for _ in range(600):
        if ask(connection, "GET", f"/api/v1/assets/{asset}/data")[1]["status"] != "NOT_READY":
            return
        time.sleep(0.1)
    raise SystemExit("the uploads are still not saved after a minute")


def ask(connection, method, path, body=None, any_answer=False):
    headers = {"X-FileSpin-Api-Key": API_KEY, "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
    except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
        # It was kept for too long without a request.
        connection.close()
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
    text = answer.read()
    if answer.status >= 300 and not any_answer:
        raise SystemExit(f"{method} {path} was answered {answer.status}: {text[:300]}")
    return answer.status, json.loads(text)


def collect(ours, count):
    """The next callbacks that were taken: when their first byte came, path, event, asset."""
    taken = []
    while len(taken) < count:
        if not ours.poll(60):
            raise SystemExit(f"only {len(taken)} of {count} callbacks came")
        taken.append(ours.recv())
    return taken


def stamp(when):
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


class Receiver(asyncio.Protocol):
    """One connection; reports each request that it takes."""

    def __init__(self, pipe):
        self.pipe = pipe
        self.read = b""
        self.first = 0.0

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        if not self.read:
            self.first = time.monotonic()
        self.read += data
        head, found, body = self.read.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.decode().lower().split("\r\n")
        length = next(int(line.split(": ")[1]) for line in lines if line.startswith("content-length: "))
        if len(body) < length:
            return
        self.read = b""
        path = lines[0].split(" ")[1]
        if path.startswith("/hang"):
            return
        said = json.loads(body)
        self.pipe.send((self.first, path, said["event"], said["id"]))
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def listen(pipe):
    async def serve():
        server = await asyncio.get_running_loop().create_server(lambda: Receiver(pipe), "127.0.0.1", 0, backlog=512)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
