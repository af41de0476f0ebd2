
import http.client, json, socket, sys, time
from urllib.parse import urlsplit

url, idle, probe = urlsplit(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
link = http.client.HTTPConnection(url.hostname, url.port, timeout=float(sys.argv[4]))
link.connect()
link.auto_open = 0  # never a second connection
row = {"opened": time.time(), "port": link.sock.getsockname()[1]}
if probe:
    link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, probe)
    link.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe)
link.request("GET", url.path)
first = json.loads(link.getresponse().read())
time.sleep(idle)
row["asked"] = time.time()
try:
    link.request("GET", url.path)
    second = json.loads(link.getresponse().read())
    row["ended"] = "answered" if second["container"] == first["container"] else "another task"
except TimeoutError:
    row["ended"] = "time-out"
except ConnectionResetError:
    row["ended"] = "reset"
except (OSError, http.client.HTTPException) as problem:
    row["ended"] = type(problem).__name__
print(json.dumps(row | {"waited": time.time() - row["asked"]}), flush=True)
