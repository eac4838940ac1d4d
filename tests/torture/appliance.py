"""The real server binary as a test drives it: start on a data directory, ask over HTTP, stop or kill.

Everything is learnt from outside: the address from the line on standard output, readiness from `/readyz`,
the archive from its documented layout. The first start on an empty directory makes
an administrator with the key below. Standard library only; nothing here retries or forgives.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse

API_KEY = "0123456789abcdef0123456789abcdef"
UPLOAD = "/api/v1/assets/new/content/original/upload"


class Appliance:
    """One data directory and, between `start` and `stop` or `kill`, one process that serves it.

    As a context it is started, and stopped at the end; an error ends the process at once.
    """

    def __init__(self, binary, data_dir, listen=("127.0.0.1:0",), environment=None):
        self.binary = os.path.abspath(binary)
        self.data_dir = data_dir
        self.log_path = os.path.join(os.path.dirname(os.path.abspath(data_dir)), "server.log")
        self.listen = listen
        self.environment = {
            "PATH": os.environ["PATH"],
            "CLOAKROOM_ADMIN_EMAIL": "admin@example.com",
            "CLOAKROOM_ADMIN_PASSWORD": "correct horse battery staple",
            "CLOAKROOM_ADMIN_API_KEY": API_KEY,
            "CLOAKROOM_ADMIN_UPLOAD_KEY": API_KEY[::-1],
            **{name: value for name, value in os.environ.items() if name.startswith("CLOAKROOM_")},
            **(environment or {}),
        }
        self.process = None
        self.addresses = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, error, *_):
        try:
            if error is None:
                self.stop()
        finally:
            self.end()

    def start(self, timeout_s=60):
        """Starts the server; returns the seconds from exec until it says that it is ready."""
        os.makedirs(self.data_dir, exist_ok=True)
        command = [self.binary, "serve", "--data-dir", self.data_dir]
        for address in self.listen:
            command += ["--listen", address]
        with open(self.log_path, "ab") as log:
            offset = log.tell()
            began = time.monotonic()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        while time.monotonic() - began < timeout_s:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended with {self.process.returncode} while starting:\n{self.tail()}")
            with open(self.log_path, "rb") as log:
                log.seek(offset)
                self.addresses = re.findall(r"^listening on (https?://\S+)$", log.read().decode(), re.MULTILINE)
            if len(self.addresses) == len(self.listen) and self._is_ready():
                return time.monotonic() - began
            time.sleep(0.005)
        raise SystemExit(f"the server was not ready after {timeout_s} s:\n{self.tail()}")

    def kill(self):
        """`kill -9`, at once; the media workers must go with their server."""
        workers = descendants(self.process.pid)
        self.process.kill()
        self.process.wait()
        _await(lambda: not [pid for pid in workers if _is_running(pid)], 60, "media workers outlived their server")

    def stop(self, timeout_s=60):
        """Asks the server to stop, as Ctrl-C does, and expects a clean end."""
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"the server did not stop within {timeout_s} s:\n{self.tail()}") from None
        if code != 0:
            raise SystemExit(f"the server stopped with {code}:\n{self.tail()}")

    def end(self):
        """Ends a process that is still there, for whoever has no more questions."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def connect(self, address=0, timeout_s=60):
        """A new connection to one of the addresses."""
        place = urllib.parse.urlsplit(self.addresses[address])
        if place.scheme == "https":
            import ssl

            trusting = ssl._create_unverified_context()  # the certificate is the server's own
            return http.client.HTTPSConnection(place.hostname, place.port, timeout=timeout_s, context=trusting)
        return http.client.HTTPConnection(place.hostname, place.port, timeout=timeout_s)

    def call(self, method, path, body=None, headers=None, key=API_KEY, timeout_s=60):
        """`call` on a connection of its own."""
        with contextlib.closing(self.connect(timeout_s=timeout_s)) as connection:
            return call(connection, method, path, body, headers, key)

    def get(self, path, headers=None):
        """`(status, body)` of one GET with the administrator's key."""
        status, _, body = self.call("GET", path, headers=headers)
        return status, body

    def upload(self, name, body, kind="application/octet-stream", timeout_s=60):
        """The id of the asset that one file becomes; anything but 200 ends the test."""
        with contextlib.closing(self.connect(timeout_s=timeout_s)) as connection:
            status, answer = post_file(connection, name, body, kind)
        if status != 200:
            raise SystemExit(f"the upload of {name} was answered {status}: {answer[:300]!r}")
        return json.loads(answer)["assets"][0]["id"]

    def get_json(self, path):
        """The JSON that a GET answers; anything but 200 ends the test."""
        status, body = self.get(path)
        if status != 200:
            raise SystemExit(f"GET {path} was answered {status}: {body[:300]!r}")
        return json.loads(body)

    def data(self, asset):
        """The asset's data, or `None` when there is no such asset."""
        status, body = self.get(f"/api/v1/assets/{asset}/data")
        if status == 404:
            return None
        if status != 200:
            raise SystemExit(f"the data of asset {asset} was answered {status}: {body[:300]!r}")
        return json.loads(body)

    def assets(self):
        """Every asset in the listing, page after page."""
        found = []
        while True:
            page = self.get_json(f"/api/v1/assets?offset={len(found)}&limit=500")["assets"]
            found += page
            if not page:
                return found

    def wait_until_ok(self, asset, timeout_s=30):
        """The asset's data once its status is OK."""
        began = time.monotonic()
        while (data := self.data(asset))["status"] != "OK":
            if data["status"] == "ERROR" or time.monotonic() - began > timeout_s:
                raise SystemExit(f"asset {asset} is {data['status']}, not OK: {data}")
            time.sleep(0.01)
        return data

    def original(self, asset):
        """Where the layout says that the asset's first original lies (src/assets/place.rs)."""
        return os.path.join(self.data_dir, "originals", asset[:2], f"{asset}.1")

    def files(self, folder):
        """Every file under one folder of the data directory, relative to it."""
        top = os.path.join(self.data_dir, folder)
        return {
            os.path.relpath(os.path.join(directory, name), top)
            for directory, _, names in os.walk(top)
            for name in names
        }

    def tail(self, lines=25):
        """The last lines the server said."""
        with open(self.log_path, "rb") as log:
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _is_ready(self):
        try:
            return self.get("/readyz")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


def call(connection, method, path, body=None, headers=None, key=API_KEY):
    """`(status, headers in lower case, body)` of one call on an open connection; bytes go as they are, the rest as JSON."""
    said = {"X-FileSpin-Api-Key": key} if key else {}
    if body is not None and not isinstance(body, bytes):
        body, said["Content-Type"] = json.dumps(body), "application/json"
    connection.request(method, path, body, {**said, **(headers or {})})
    answer = connection.getresponse()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


def unless_killed(dead, fail, what, ask, *arguments):
    """What `ask` returns, or `None` when the server was killed meanwhile; that it broke off before is told to `fail`."""
    try:
        return ask(*arguments)
    except (OSError, http.client.HTTPException) as error:
        # The kill is announced before it is done.
        if not dead.is_set():
            fail(f"{what} broke off though the server was alive: {error!r}")
        return None


@contextlib.contextmanager
def directory(prefix, keep=False):
    """A temporary directory, kept for looking at when something fails in it."""
    path = tempfile.mkdtemp(prefix=prefix)
    try:
        yield path
    except BaseException:
        print(f"kept for looking at: {path}", file=sys.stderr)
        raise
    if not keep:
        shutil.rmtree(path)


def loop_options(doc, **numbers):
    """What a program that is led by dice is told on its command line. Prints the seed."""
    arguments = argparse.ArgumentParser(description=doc.splitlines()[0])
    arguments.add_argument("binary")
    for name, number in numbers.items():
        arguments.add_argument(f"--{name}", type=int, default=number)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments.add_argument("--keep", action="store_true")
    options = arguments.parse_args()
    print(f"seed {options.seed}", flush=True)
    return options


def post_file(connection, name, body, kind="application/octet-stream", after_last_byte=None, path=UPLOAD):
    """Uploads one file on an open connection: `(status, answer)`, read to its end. Copies no body."""
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        f"Content-Type: {kind}\r\n\r\n"
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    connection.putrequest("POST", path)
    connection.putheader("X-FileSpin-Api-Key", API_KEY)
    connection.putheader("Content-Type", f"multipart/form-data; boundary={boundary}")
    connection.putheader("Content-Length", str(len(head) + len(body) + len(tail)))
    connection.endheaders()
    connection.send(head)
    connection.send(body)
    connection.send(tail)
    if after_last_byte:
        after_last_byte()
    answer = connection.getresponse()
    return answer.status, answer.read()


def sha256_of(path):
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def descendants(pid):
    """The process ids of all children of a process, and of theirs."""
    found = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as children:
                for child in map(int, children.read().split()):
                    found += [child, *descendants(child)]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def _is_running(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _await(condition, timeout_s, otherwise):
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > timeout_s:
            raise SystemExit(otherwise)
        time.sleep(0.02)
