
import http.client, json, signal, sys, time
from urllib.parse import urlsplit

signal.signal(signal.SIGINT, signal.SIG_DFL)
url, every, keep = urlsplit(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "keep"
link, number = None, 0
print("asking", file=sys.stderr, flush=True)
while True:
    row = {"at": time.time()}
    try:
        if link is None:
            link, number = http.client.HTTPConnection(url.hostname, url.port, timeout=5), number + 1
        link.request("GET", url.path)
        row |= json.loads(link.getresponse().read())
    except (OSError, http.client.HTTPException) as problem:
        row["error"] = type(problem).__name__
    if link and ("error" in row or not keep):
        link.close()
        link = None
    print(json.dumps(row | {"connection": number}), flush=True)
    time.sleep(max(0.0, row["at"] + every - time.time()))
