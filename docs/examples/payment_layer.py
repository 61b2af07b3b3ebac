#!/usr/bin/env python3
"""A minimal payment layer: sells credit in advance and adds up the usage of one node.

    WEIR_URL=http://127.0.0.1:8080 WEIR_TOKEN=... payment_layer.py GIB_PRICE [ROUNDS]

A session gets credit for another CHUNK bytes when less than half a CHUNK is left. In this example
every session pays. The total is exact, whatever is lost, repeated or restarted on the way."""
import json, os, sys, time, urllib.request

CHUNK, URL, TOKEN = 1 << 30, os.environ["WEIR_URL"], os.environ["WEIR_TOKEN"]
price, rounds = float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0


def ask(path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Authorization": "Bearer " + TOKEN})
    return json.load(urllib.request.urlopen(request, timeout=10))


cursor, usage = 0, {}  # a real payment layer stores both in its database, in one transaction
while True:
    page = ask(f"/v1/usage?after={cursor}")
    for record in page["records"]:  # cumulative: only the highest sequence counts
        if record["sequence"] > usage.get(record["session"], (0, 0))[0]:
            used = record["bytes_up"] + record["bytes_down"]
            usage[record["session"]] = (record["sequence"], used)
    cursor = page["cursor"]
    for session in ask("/v1/sessions")["sessions"]:
        used, credit = session["bytes_up"] + session["bytes_down"], session["credit_bytes"] or 0
        if credit - used < CHUNK // 2:  # a reference is credited only once, so a retry is safe
            pay = {"reference": f"{session['id']}-{credit}", "bytes": CHUNK}
            ask(f"/v1/sessions/{session['id']}/credit", pay)
    total = sum(used for _, used in usage.values())
    print(f"{len(usage)} sessions, {total} bytes, {total / (1 << 30) * price:.6f} due", flush=True)
    rounds -= 1
    if rounds == 0:
        break
    time.sleep(0 if rounds > 0 else 5)
