"""Receives callbacks of asynchronous invocations and checks their signatures: python3 callback_receiver.py --secret-file F [--port N].

Prints a line for each: the execution's id, its status, the attempt. Refuses what is not signed with the secret, or was signed long ago.
"""
import argparse
import hashlib
import hmac
import http.server
import json
import time

TOLERANCE_S = 300
BODY_MAX = 16 * 1024 * 1024


def is_signed(header, body, secret, now):
    """`header` is t=SECONDS,v1=HEX: the HMAC-SHA256 of "SECONDS.BODY"."""
    parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
    stamp = parts.get("t", "")
    if not stamp.isascii() or not stamp.isdigit() or abs(now - int(stamp[:15])) > TOLERANCE_S:
        return False
    expected = hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), parts.get("v1", "").encode())


class Receiver(http.server.BaseHTTPRequestHandler):
    secret = b""

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > BODY_MAX:
            self.send_error(413)
            return
        body = self.rfile.read(int(length))
        if not is_signed(self.headers.get("Faas-Signature", ""), body, self.secret, time.time()):
            self.send_error(401)
            return
        execution = json.loads(body)["execution"]
        print(execution["id"], execution["status"], "attempt", self.headers["Faas-Callback-Attempt"], flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--secret-file", required=True)
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args()
    with open(options.secret_file, "rb") as file:
        Receiver.secret = file.read().rstrip(b"\r\n")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), Receiver)
    print(f"listening on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
