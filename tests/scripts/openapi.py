#!/usr/bin/python3
"""Every documented call is asked everything its document allows, and much that it does not, by schemathesis.

    openapi.py BASE API_KEY FOREIGN [EXAMPLES]

FOREIGN is the folder into which packaging/test.sh has installed schemathesis. No answer may be a server's error, and
none may be one that `/openapi.json` does not tell of: status, media type, shape, `Allow`. Three of its checks are left
out: that a wrong key is refused, since the good one goes along here (`api/matrix` asks every route with wrong ones); that whatever fits a document's types is taken, which no document can promise (a time has to be one), and that
whatever does not is refused, which the vendor's contract forbids (unknown things are ignored). The feed has no end, schemathesis cannot write the pieces of /files (`api/tus` asks those by the rules), and
calls that would take the key away are not made. EXAMPLES of a call are 10; before a release, 100.
"""

import os
import subprocess
import sys
import tempfile

BASE, API_KEY, FOREIGN = sys.argv[1:4]
EXAMPLES = (sys.argv[4:] or ["10"])[0]
# The administrator whose key this is must stay.
NOT_ASKED = "/user/keys|/user$|/user/logout|/users/|/user/second_factor|/settings/update|/api/v1/feed|/files"

words = [os.path.join(FOREIGN, "schemathesis", "bin", "st"), "run", f"{BASE}/openapi.json", "-H", f"X-FileSpin-Api-Key: {API_KEY}"]
words += ["--checks", "all", "--exclude-checks", "positive_data_acceptance,negative_data_rejection,ignored_auth"]
words += ["--phases", "examples,coverage,fuzzing", "--exclude-path-regex", NOT_ASKED, "-n", EXAMPLES, "--generation-database", "none"]
words += ["--request-timeout", "30", "--seed", "1", "--continue-on-failure", "--no-color"]
# What it remembers between runs is nothing to keep in the tree.
with tempfile.TemporaryDirectory() as elsewhere:
    done = subprocess.run(words, cwd=elsewhere, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
if done.returncode:
    sys.exit(done.stdout[-12000:] + done.stderr)
print(f"openapi: {EXAMPLES} examples of each call, every answer as documented")
