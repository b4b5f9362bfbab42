"""Between a worker and its controllers, in the worker's namespace: passes everything on as it is, until the file named by its first
argument says "twice PERCENT" or "swap PERCENT". Then so many of the messages are said twice, or after the next one, both ways.

    relay.py FAULT_FILE PORT ADDRESS:PORT [PORT ADDRESS:PORT …]"""
import random
import socket
import socketserver
import struct
import sys
import threading

HEADER = struct.Struct('<IQ')  # src/base/message.h


def fault(path):
    try:
        with open(path, encoding='ascii') as file:
            what, percent = file.read().split()
            return what, int(percent) / 100
    except (OSError, ValueError):
        return None, 0


def read_exactly(file, length):
    data = file.read(length)
    if len(data) < length:
        raise EOFError
    return data


def read_http_head(file):
    lines = [file.readline()]
    while lines[-1] not in (b'\r\n', b''):
        lines.append(file.readline())
    return b''.join(lines)


def pass_on_messages(source, destination, path):
    kept = b''
    while True:
        header = read_exactly(source, HEADER.size)
        head_len, body_len = HEADER.unpack(header)
        message = header + read_exactly(source, head_len + body_len)
        what, chance = fault(path)
        struck = random.random() < chance
        if what == 'swap' and struck and not kept:
            kept = message
            continue
        destination.sendall(message + kept + (message if what == 'twice' and struck else b''))
        kept = b''


def pass_on(source, destination, path, is_stream):
    """One direction of one connection, until its end."""
    file = source.makefile('rb')
    try:
        head = read_http_head(file)
        destination.sendall(head)
        if is_stream(head):
            pass_on_messages(file, destination, path)
        while data := file.read1(65536):
            destination.sendall(data)
    except (EOFError, OSError):
        pass
    for end in (source, destination):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def serve(port, address, path):
    host, _, remote_port = address.rpartition(':')

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            try:
                remote = socket.create_connection((host, int(remote_port)))
            except OSError:
                return
            with remote:
                back = threading.Thread(target=pass_on, args=(remote, self.request, path, lambda head: b' 101 ' in head.split(b'\r\n')[0]), daemon=True)
                back.start()
                pass_on(self.request, remote, path, lambda head: b'/v1/worker/stream' in head.split(b'\r\n')[0])
                back.join()

    threading.Thread(target=Server(('127.0.0.1', port), Handler).serve_forever, daemon=True).start()


if __name__ == '__main__':
    fault_file, *pairs = sys.argv[1:]
    for local, remote_address in zip(pairs[::2], pairs[1::2]):
        serve(int(local), remote_address, fault_file)
    threading.Event().wait()
