#!/usr/bin/python3
"""Hostile files and thousands of mutants, shown to the real media worker in its sandbox.

    workers.py CLOAKROOM_MEDIA [--count 60] [--seed 0] [--only GROUP] [--keep DIRECTORY]

For each file: what is it, and a small picture of it. The worker must answer, with a picture or with a reason, within
its limits of time and memory. In service a worker that dies costs one request; here it is a finding, and the file is
kept. `--count 2000` is for a night or a release. Ends with 0, or with the names of the findings.
"""

import argparse
import collections
import os
import re
import sys
import time

import files
import mutants
from media_worker import MediaWorker
from media_worker import render_request
from media_worker import WorkerGone

RECIPES = ("resize=40,40", "crop=30,20,smart&blur=1", "rotate=33&trim", "")
# Longer than this is an attack on everybody else, whatever comes out; on a busy machine it is processor time that counts.
LONGEST_CPU_S = 15
# The sandbox allows 1.5 GiB of address space; what is resident stays below.
MOST_MIB = 1400


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("program")
    arguments.add_argument("--count", type=int, default=60, help="mutants of each format")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--keep", default="")
    arguments.add_argument("--slowness", type=int, default=1, help="how much longer a build without optimisation may take")
    options = arguments.parse_args()
    findings = []
    with MediaWorker(options.program, patience_s=60 * options.slowness, cpu_s=20 * options.slowness) as worker:
        worker.longest_cpu_s = LONGEST_CPU_S * options.slowness
        sets = [("by hand", files.all_files())] if options.only in ("", "hand") else []
        sets += [(group, mutants.of(group, options.count, options.seed)) for group in mutants.groups() if options.only in ("", group)]
        for title, those in sets:
            began = time.monotonic()
            outcomes = collections.Counter()
            dearest = [(0, "")]
            for number, (name, data) in enumerate(those):
                for finding in look(worker, name, data, RECIPES[number % len(RECIPES)], outcomes, dearest):
                    findings.append(finding)
                    print(f"FOUND {finding}", flush=True)
                    keep(options.keep, name, data)
            said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
            cpu_s, name = max(dearest)
            print(f"{title}: {said}; {time.monotonic() - began:.1f} s; dearest {name} with {cpu_s:.2f} s CPU", flush=True)
    if findings:
        sys.exit(f"{len(findings)} findings:\n" + "\n".join(findings))


def look(worker, name, data, recipe, outcomes, dearest):
    """Asks both questions; what was wrong with the answers."""
    findings = []
    for request in ({"Probe": {"limits": {}}}, render_request(recipe, "jpeg")):
        what = f"{name} ({next(iter(request)).lower()}{' ' + recipe if 'Render' in request else ''})"
        try:
            answer = worker.ask(request, data)
        except WorkerGone as why:
            outcomes["killed the worker"] += 1
            findings.append(f"{what}: the worker is gone: {why}")
            worker.stop()
            worker.start()
            continue
        refusal = answer.refusal()
        if refusal:
            outcomes["refused"] += 1
            said = str(next(iter(refusal.values()))) if isinstance(refusal, dict) else refusal
            if not said or re.search(r"/home/|/usr/|/work|\.rs:|0x[0-9a-f]{11}", said):
                findings.append(f"{what}: not a reason for a caller: {refusal}")
        elif "Rendered" in answer.reply and not answer.body:
            findings.append(f"{what}: rendered, and there is nothing")
        else:
            outcomes["understood"] += 1
        dearest.append((answer.cpu_s, name))
        if answer.cpu_s > worker.longest_cpu_s:
            findings.append(f"{what}: took {answer.cpu_s:.1f} s of processor time")
        peak, _ = worker.memory_mib()
        if peak > MOST_MIB:
            findings.append(f"{what}: took {peak:.0f} MiB")
            worker.stop()
            worker.start()
    return findings


def keep(folder, name, data):
    if folder:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, name), "wb") as out:
            out.write(data)


if __name__ == "__main__":
    main()
