import socket, time
link = socket.create_connection(("front", 3000), 5)
for pause in (3, 0):
    link.sendall(b"GET / HTTP/1.1\r\nHost: front\r\n\r\n")
    text = b""
    while not text.endswith(b"HI\n"):
        more = link.recv(4096)
        if not more:
            raise SystemExit("closed")
        text += more
    time.sleep(pause)
print("answers")
