"""The media worker as its server drives it, without the server: the real binary, in its real sandbox.

Speaks the protocol of src/infra/workers/protocol.rs over the socket that is the worker's standard input: a frame is
JSON, files travel beside it as descriptors. One worker, one request at a time, for tests that want thousands of
requests and for benches that want the cost of one. Standard library only.
"""

import json
import os
import resource
import socket
import subprocess
import time
import tomllib

FRAME_BYTES = 64 * 1024
OUTPUT_BYTES = 512 << 20
MEMORY_BYTES = 1536 << 20


with open(os.path.join(os.path.dirname(__file__), "..", "..", "Cargo.toml"), "rb") as manifest:
    VERSION = tomllib.load(manifest)["package"]["version"]


class WorkerGone(Exception):
    """The worker ended instead of answering."""


class Answer:
    """What one request brought: the reply, the bytes that were made, and what they cost."""

    def __init__(self, reply, body, cpu_s, wall_s):
        self.reply = reply
        self.body = body
        self.cpu_s = cpu_s
        self.wall_s = wall_s

    def refusal(self):
        """Why nothing was made, or `None`."""
        if not isinstance(self.reply, dict):
            return None
        made = self.reply.get("Rendered") or [{}]
        return self.reply.get("Refused") or made[0].get("Err")


def render_request(recipe, kind):
    order = {"recipe": recipe, "format": kind, "ceiling": None, "focus": None}
    return {"Render": {"orders": [order], "limits": {}}}


class MediaWorker:
    """A worker process; ends with the `with` block."""

    def __init__(self, program, patience_s=60, cpu_s=20):
        self.program = program
        self.patience_s = patience_s
        self.cpu_s = cpu_s

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self.socket.settimeout(self.patience_s)
        null = subprocess.DEVNULL
        # Its memory limit is for good, so it can only be set in a process of its own; no core is worth keeping.
        self.process = subprocess.Popen(
            [self.program, "interactive"],
            stdin=theirs,
            stdout=null,
            stderr=null,
            env={},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
        )
        theirs.close()
        setup = {
            "version": VERSION,
            "class": "interactive",
            "memory_bytes": MEMORY_BYTES,
            "output_bytes": OUTPUT_BYTES,
            "sandbox_required": True,
        }
        said = self._ask({"setup": setup})
        if "ready" not in said:
            raise SystemExit(f"the media worker is not ready: {said}")

    def stop(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()

    def render(self, source, recipe, kind):
        """`kind` is jpeg, png, webp or avif."""
        return self.ask(render_request(recipe, kind), source)

    def base(self, source, side=2048):
        return self.ask({"Base": {"side": side, "limits": {}}}, source)

    def probe(self, source):
        return self.ask({"Probe": {"limits": {}}}, source)

    def ask(self, request, source):
        """Sends a request about a file, given as bytes or as a path."""
        if isinstance(source, bytes):
            file = os.memfd_create("source")
            os.write(file, source)
            size_bytes = len(source)
        else:
            file = os.open(source, os.O_RDONLY)
            size_bytes = os.fstat(file).st_size
        output = os.memfd_create("output")
        run = {"body": request, "sources_bytes": [size_bytes], "cpu_seconds": self.cpu_s, "output_bytes": OUTPUT_BYTES}
        try:
            cpu_before, began = self.cpu(), time.monotonic()
            said = self._ask({"run": run}, [output, file])
            wall_s, cpu_s = time.monotonic() - began, self.cpu() - cpu_before
            if "done" not in said:
                raise WorkerGone(str(said))
            body = os.pread(output, said["done"]["output_bytes"], 0)
            return Answer(said["done"]["body"], body, cpu_s, wall_s)
        finally:
            os.close(file)
            os.close(output)

    def cpu(self):
        """Processor seconds so far, to the nanosecond."""
        with open(f"/proc/{self.process.pid}/schedstat", encoding="ascii") as schedstat:
            return int(schedstat.read().split()[0]) / 1e9

    def memory_mib(self):
        """`(peak, now)` of resident memory, in MiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            fields = dict(line.split(":", 1) for line in status)
        return int(fields["VmHWM"].split()[0]) / 1024, int(fields["VmRSS"].split()[0]) / 1024

    def _ask(self, frame, files=()):
        try:
            socket.send_fds(self.socket, [json.dumps(frame).encode()], files)
            said = self.socket.recv(FRAME_BYTES)
        except TimeoutError:
            raise WorkerGone(f"no answer within {self.patience_s} s") from None
        except OSError as error:
            raise WorkerGone(self._ending() or str(error)) from None
        if not said:
            raise WorkerGone(self._ending())
        return json.loads(said)

    def _ending(self):
        try:
            return f"it ended with {self.process.wait(2)}"
        except subprocess.TimeoutExpired:
            return "it hung up"
