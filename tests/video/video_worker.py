"""The video worker as the server runs it: one process for an errand, a document to it, lines from it.

`run(program, errand, …)` gives what it said last and what it cost. The limits here are a test's own: whoever goes
beyond them is killed, as the server would. Standard library only.
"""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MIB = 1 << 20
# As in src/media/video: nothing is looked for, everything is told.
ENVIRONMENT = {
    "GST_REGISTRY_DISABLE": "yes",
    "GST_REGISTRY_FORK": "no",
    "GST_PLUGIN_SYSTEM_PATH_1_0": "",
    "GST_PLUGIN_PATH_1_0": "",
    "GST_DEBUG": "0",
    "ORC_CODE": "backup",
}
HOMES = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR")
PLAIN = {"fit": "preserve", "padding": [0, 0, 0], "upscale": False}
LADDER = (360, 480, 720, 1080)


@dataclasses.dataclass
class Answer:
    # What it said last; `None` where that is nothing.
    last: dict | None
    lines: list
    # Its exit code, below 0 a signal's number; or why it was killed here.
    code: int
    killed: str
    cpu_s: float
    wall_s: float
    peak_mib: float

    def made(self, kind):
        """What the errand made, such as `Transcoded`; `None` if it did not."""
        done = self.last.get("done") if self.last else None
        return done.get(kind) if isinstance(done, dict) else None

    @property
    def failed(self):
        return self.last.get("failed") if self.last else None

    @property
    def warnings(self):
        for kind in ("Transcoded", "Recording"):
            if self.made(kind):
                return self.made(kind)["warnings"]
        return []


def transcode(source, folder, rungs=LADDER, hls=LADDER, encoder="x264enc"):
    """The errand for a ladder."""
    return {
        "Transcode": {
            "source": source, "folder": folder, "encoder": encoder, "clip": None, "mark": None,
            "renditions": [{"name": f"{lines}p-video", "lines": lines, "shape": PLAIN, "watermark": False} for lines in rungs],
            "hls": {"ladder": list(hls), "shape": PLAIN, "watermark": False} if hls else None,
        }
    }  # fmt: skip


def poster(source, folder, side=640):
    return {"Poster": {"source": source, "folder": folder, "side": side}}


def storyboard(source, folder, number=5):
    return {
        "Storyboard": {"source": source, "folder": folder, "frames": {"number": number}, "width": 160, "height": 120, "shape": PLAIN}
    }


def recording(source, folder):
    return {"Recording": {"source": source, "folder": folder, "width": 800, "height": 200}}


def run(program, errand, sources=(), folder=None, wall_s=120, memory_mib=3072, folder_mib=4096, on_line=None, required=True):
    """Gives an errand to a worker of its own and waits for its end."""
    cell = {
        "version": version(), "read": list(sources), "folder": folder, "devices": False, "memory_bytes": memory_mib * MIB,
        "cpu_seconds": 3600, "folder_bytes": folder_mib * MIB, "sandbox_required": required,
    }  # fmt: skip
    environment = {} if os.environ.get("BARE_VIDEO_WORKER") else ENVIRONMENT | {name: folder or "/nonexistent" for name in HOMES}
    began = time.monotonic()
    process = subprocess.Popen(
        [program, "errand"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    watch = Watch(process.pid, wall_s, memory_mib, folder, folder_mib)
    lines = []
    try:
        process.stdin.write(json.dumps({"cell": cell, "errand": errand}).encode())
        process.stdin.close()
        for line in process.stdout:
            lines.append(json.loads(line))
            if on_line:
                on_line(process, lines[-1])
    except BrokenPipeError:
        pass
    except ValueError:
        lines.append({"nonsense": line[:200].decode("utf-8", "replace")})
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.end()
    return Answer(
        lines[-1] if lines else None, lines, process.returncode, watch.why, usage.ru_utime + usage.ru_stime,
        time.monotonic() - began, max(watch.peak_mib, usage.ru_maxrss / 1024),
    )  # fmt: skip


class Watch:
    """Kills a process that takes too much, as the server does."""

    def __init__(self, pid, wall_s, memory_mib, folder, folder_mib):
        self.pid, self.memory_mib, self.folder, self.folder_mib = pid, memory_mib, folder, folder_mib
        self.until = time.monotonic() + wall_s
        self.peak_mib = 0
        self.why = ""
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self):
        while not self.done.wait(0.1):
            self.peak_mib = max(self.peak_mib, resident_mib(self.pid))
            if self.peak_mib > self.memory_mib:
                self.kill(f"more than {self.memory_mib} MiB of memory")
            elif time.monotonic() > self.until:
                self.kill("more time than it has")
            elif self.folder and size_mib(self.folder) > self.folder_mib:
                self.kill(f"more than {self.folder_mib} MiB of files")

    def kill(self, why):
        self.why = self.why or why
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def end(self):
        self.done.set()
        self.thread.join()


def resident_mib(pid):
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as status:
            found = re.search(r"VmRSS:\s+(\d+)", status.read())
            return int(found[1]) / 1024 if found else 0
    except (FileNotFoundError, ProcessLookupError):
        return 0


def size_mib(folder):
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(directory, name))
            except FileNotFoundError:
                pass
    return total / MIB


def version():
    """Of the sources; a worker of another one refuses."""
    with open(os.path.join(ROOT, "Cargo.toml"), encoding="utf-8") as file:
        return re.search(r'^version = "([^"]+)"', file.read(), re.MULTILINE)[1]


def emptied(folder):
    """The same folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    return folder
