"""A machine for the suite alone, and everything that attackers reach for from it.

enter() puts this process into a network namespace of its own, with no interface but loopback, before anything else runs. So whatever a
defence lets through, no packet can leave the machine. World() then makes the places that there are:

    internet  203.0.113.0/24    a web server at .10, a second host at .11, a name server at .53
    lan       192.168.77.0/24   a server at .20
    metadata  169.254.0.0/16    the addresses that clouds have: 169.254.169.254, and others outside of this network

each a network namespace at the end of a veth pair, with a sniffer that sees every frame. There is no default route."""
import contextlib
import ctypes
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time

CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
MARK = 'FAAS_HOSTILE_INSIDE'
WEB, SECOND, DNS = '203.0.113.10', '203.0.113.11', '203.0.113.53'
LAN = '192.168.77.20'
METADATA = '169.254.169.254'
OTHER_METADATA = ('100.100.100.200', '168.63.129.16', '192.0.0.192')
PORTS = (53, 80, 443, 5432, 8080)
NAMES = {'web.example': WEB, 'second.example': SECOND, 'metadata.example': METADATA, 'lan.example': LAN, 'gateway.example': '10.88.64.1', 'host.example': '203.0.113.1'}
# How many times as long as usual the suite waits for what must come; for machines that are emulated.
PATIENCE = float(os.environ.get('HOSTILE_PATIENCE', '1'))

libc = ctypes.CDLL(None, use_errno=True)


def run(*command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def enter():
    """Starts this program again in namespaces of its own (network, mounts); returns only there."""
    if os.environ.get(MARK) == str(os.getpid()):
        del os.environ[MARK]
        return
    if libc.unshare(CLONE_NEWNET | CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), 'unshare')
    run('mount', '--make-rprivate', '/')
    # /sys shows the interfaces of the namespace in which it was mounted; what a worker needs below it comes along: cgroups, and the kernel's
    # door for AppArmor profiles, without which containers would run under none.
    run('mount', '-t', 'tmpfs', 'tmpfs', '/mnt')
    kept = [path for path in ('/sys/fs/cgroup', '/sys/kernel/security') if os.path.ismount(path)]
    for path in kept:
        os.makedirs('/mnt' + path)
        run('mount', '--rbind', path, '/mnt' + path)
    run('mount', '-t', 'sysfs', 'sysfs', '/sys')
    for path in kept:
        run('mount', '--rbind', '/mnt' + path, path)
    run('umount', '-l', '/mnt')
    # What the workers of one machine share about its bridges is of this machine only.
    os.makedirs('/run/faas', exist_ok=True)
    run('mount', '-t', 'tmpfs', '-o', 'mode=755', 'tmpfs', '/run/faas')
    run('ip', 'link', 'set', 'lo', 'up')
    os.environ[MARK] = str(os.getpid())
    os.execv(sys.executable, [sys.executable, '-B', *sys.argv])


def in_namespace(descriptor, action):
    """The value of action(), called by a thread that has joined the network namespace. Its sockets stay there."""
    result = []

    def work():
        try:
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), 'setns')
            result.append((action(), None))
        except BaseException as error:  # pylint: disable=broad-except
            result.append((None, error))
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    value, error = result[0]
    if error:
        raise error
    return value


class Packet:
    """An IPv4 packet, or another frame, as a sniffer has seen it."""

    def __init__(self, frame):
        self.type = struct.unpack('!H', frame[12:14])[0]
        self.mac = frame[6:12]
        self.source = self.target = self.port = self.protocol = None
        self.broadcast = bool(frame[0] & 1)
        if self.type == 0x0800 and len(frame) >= 34:
            header = (frame[14] & 15) * 4
            self.protocol = frame[23]
            self.source, self.target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
            if self.protocol in (6, 17) and len(frame) >= 14 + header + 4:
                self.port = struct.unpack('!H', frame[14 + header + 2:14 + header + 4])[0]

    def __repr__(self):
        return f'{self.source or hex(self.type)}>{self.target}:{self.port} from {self.mac.hex(":")}'


class Sniffer:
    """Every frame that arrives at an interface; must be made in its namespace."""

    def __init__(self, interface):
        # With a protocol from the start it would hear every interface until it is bound to this one.
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
        self.socket.bind((interface, 3))
        self.socket.setblocking(False)

    def take(self):
        """What has arrived since the last call. A packet that was sent is there by then: veth pairs deliver at once."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, address = self.socket.recvfrom(65535)
                if address[2] != socket.PACKET_OUTGOING and len(frame) >= 14:
                    found.append(Packet(frame))
        return found


class Place:
    def __init__(self, name, gateway, addresses, prefix):
        self.name, self.addresses = name, addresses
        self.descriptor = self._make_namespace()
        self.path = f'/proc/{os.getpid()}/fd/{self.descriptor}'
        self.host_interface = 'to-' + name
        run('ip', 'link', 'add', self.host_interface, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', self.path)
        run('ip', 'addr', 'add', f'{gateway}/{prefix}', 'dev', self.host_interface)
        run('ip', 'link', 'set', self.host_interface, 'up')
        self._inside('ip', 'link', 'set', 'lo', 'up')
        for address in addresses:
            self._inside('ip', 'addr', 'add', f'{address}/{prefix}', 'dev', 'eth0')
        self._inside('ip', 'link', 'set', 'eth0', 'up')
        # Functions are masqueraded; if one were not, its packets would still be seen, but it would get no answer.
        self.sniffer = in_namespace(self.descriptor, lambda: Sniffer('eth0'))
        self.servers = in_namespace(self.descriptor, self._listen)

    def add(self, *addresses):
        """More addresses, outside of its network."""
        for address in addresses:
            self._inside('ip', 'addr', 'add', address + '/32', 'dev', 'eth0')
            run('ip', 'route', 'add', address, 'dev', self.host_interface)
        self.addresses += addresses

    @staticmethod
    def _make_namespace():
        made = []

        def work():
            if libc.unshare(CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), 'unshare')
            made.append(os.open('/proc/thread-self/ns/net', os.O_RDONLY | os.O_CLOEXEC))
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made[0]

    def _inside(self, *command):
        run('nsenter', '--net=' + self.path, *command)

    @staticmethod
    def _listen():
        return [socket.create_server(('0.0.0.0', port), backlog=512) for port in PORTS]

    def close(self):
        for server in self.servers:
            server.close()
        self.sniffer.socket.close()
        run('ip', 'link', 'del', self.host_interface)
        os.close(self.descriptor)


class NameServer(threading.Thread):
    """Answers for NAMES, and nothing for any other name; keeps what it was asked."""

    def __init__(self, place):
        super().__init__(daemon=True)
        self.socket = in_namespace(place.descriptor, self._bind)
        self.asked = []
        self.stopped = os.pipe()
        self.start()

    @staticmethod
    def _bind():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((DNS, 53))
        return server

    def run(self):
        while True:
            ready = select.select([self.socket, self.stopped[0]], [], [])[0]
            if self.stopped[0] in ready:
                return
            query, client = self.socket.recvfrom(2048)
            with contextlib.suppress(OSError, IndexError):
                self.socket.sendto(self._answer(query), client)

    def _answer(self, query):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode(errors='replace'))
            at += 1 + query[at]
        name, kind = '.'.join(labels).lower(), struct.unpack('!H', query[at + 1:at + 3])[0]
        self.asked.append(name)
        question = query[12:at + 5]
        address = NAMES.get(name)
        if not address:
            return query[:2] + b'\x81\x83\0\1\0\0\0\0\0\0' + question
        if kind != 1:
            return query[:2] + b'\x81\x80\0\1\0\0\0\0\0\0' + question
        return query[:2] + b'\x81\x80\0\1\0\1\0\0\0\0' + question + b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4' + socket.inet_aton(address)

    def close(self):
        os.write(self.stopped[1], b'x')
        self.join()
        self.socket.close()
        os.close(self.stopped[0])
        os.close(self.stopped[1])


class World:
    def __init__(self):
        self.internet = Place('internet', '203.0.113.1', [WEB, SECOND, DNS], 24)
        self.lan = Place('lan', '192.168.77.1', [LAN], 24)
        self.metadata = Place('metadata', '169.254.0.1', [METADATA, '169.254.170.2'], 16)
        self.metadata.add(*OTHER_METADATA)
        self.places = (self.internet, self.lan, self.metadata)
        self.names = NameServer(self.internet)
        self.verify()

    def verify(self):
        """Each address leads into one of our own namespaces, and nothing leads anywhere else."""
        for place in self.places:
            for address in place.addresses:
                route = subprocess.run(['ip', 'route', 'get', address], capture_output=True, text=True, check=True).stdout
                if f' dev {place.host_interface} ' not in route:
                    raise AssertionError(f'{address} does not lead to {place.name}: {route}')
        if subprocess.run(['ip', 'route', 'show', 'default'], capture_output=True, text=True, check=True).stdout.strip():
            raise AssertionError('there is a default route')
        links = {line.split(': ')[1].split('@')[0] for line in
                 subprocess.run(['ip', '-o', 'link'], capture_output=True, text=True, check=True).stdout.splitlines()}
        unknown = {link for link in links if not link.startswith(('lo', 'to-', 'faas', 'veth', 'ifb'))}
        for link in unknown:
            if os.path.exists(f'/sys/class/net/{link}/device'):
                raise AssertionError(f'{link} is a device')

    def clear(self):
        for place in self.places:
            place.sniffer.take()
        self.names.asked.clear()

    def close(self):
        self.names.close()
        for place in self.places:
            place.close()


def settle(check, seconds=3.0):
    """check() as soon as it is true, or as it is after this time."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not (value := check()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return value
