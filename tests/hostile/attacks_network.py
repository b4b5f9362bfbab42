"""Attacks over the network: the host, neighbours, metadata services, a forbidden LAN, false senders. Each place is one of the suite's own
(world.py) and has a sniffer, so that what counts is not what the attacker sees but what arrives."""
import json
import os
import re
import socket
import struct
import subprocess
import threading
import time

from conntrack import tracked_to
from hostile import group
from world import DNS, LAN, METADATA, NAMES, PATIENCE, PORTS, SECOND, WEB, Sniffer, in_namespace, settle

attack = group('network')

OWN_ADDRESS = '''
def own_address():
    import fcntl
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return socket.inet_ntoa(fcntl.ioctl(probe, 0x8915, struct.pack('256s', b'eth0'))[20:24])
'''


def host_addresses():
    links = json.loads(subprocess.run(['ip', '-j', '-4', 'addr'], capture_output=True, check=True).stdout)
    return [info['local'] for link in links for info in link['addr_info']]


def reach(suite, targets, **fields):
    """Which of these the function reaches over TCP. It sends each a datagram too: whether that arrives is for the sniffers."""
    suite.deploy(python=f'''
targets = {[tuple(target) for target in targets]!r}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
    for target in targets:
        try: datagrams.sendto(b'x', target)
        except OSError: pass
print(json.dumps(connect(*targets)))
''', **({'network': 'bridge'} | fields))
    return suite.result()


def instance_pid(suite, marker):
    """The host pid of a running process of an instance, by its comm."""
    def find():
        for pid in filter(str.isdigit, os.listdir('/proc')):
            try:
                with open(f'/proc/{pid}/comm', encoding='utf-8', errors='replace') as file:
                    if file.read().strip() == marker:
                        return int(pid)
            except OSError:
                pass
        return None
    pid = settle(find, 10)
    assert pid, f'{marker} does not run'
    return pid


class Occupied:
    """An instance that is busy until the block ends, for the runner to look into its namespace."""

    def __init__(self, suite, name, **fields):
        self.suite, self.name = suite, name
        suite.deploy(name, python=f'''
libc.prctl(15, b"{name[:15]}", 0, 0, 0)
s = socket.create_server(("0.0.0.0", 8080))
s.settimeout(20)
try:
    s.accept()
    print(1)
except OSError:
    print(0)
''', network='bridge', timeout_ms=30000, **fields)

    def __enter__(self):
        self.thread = threading.Thread(target=lambda: self.suite.invoke(name=self.name))
        self.thread.start()
        self.pid = instance_pid(self.suite, self.name[:15])
        return self

    def __exit__(self, *_):
        os.kill(self.pid, 9)
        self.thread.join()

    def inside(self, action):
        """Calls it with every right over the instance's network, as somebody who has broken out of all else."""
        descriptor = os.open(f'/proc/{self.pid}/ns/net', os.O_RDONLY)
        try:
            return in_namespace(descriptor, action)
        finally:
            os.close(descriptor)

    def command(self, *words):
        return subprocess.run(['nsenter', f'--net=/proc/{self.pid}/ns/net', *words], capture_output=True, text=True, check=True).stdout


@attack('network-none', 'everything, from a function without network', 'loopback only', 'a network namespace without interfaces')
def _(suite):
    reached = reach(suite, [(WEB, 80), (LAN, 80), (METADATA, 80)], network='none')
    assert not reached, reached
    for place in suite.world.places:
        suite.nothing_arrived(place)
    return 'nothing'


@attack('network-bridge', 'the internet (what a function may do)', 'reached', '—')
def _(suite):
    reached = reach(suite, [(WEB, 80), (SECOND, 443)])
    assert reached == [f'{WEB}:80', f'{SECOND}:443'], reached
    senders = {packet.source for packet in suite.world.internet.sniffer.take() if packet.port in (80, 443)}
    assert senders == {'203.0.113.1'}, senders
    return 'reached, masqueraded'


@attack('host-addresses', 'controller, worker and everything else on the host, by every address that it has', 'nothing reached',
        'nftables: nothing from the bridge to the host')
def _(suite):
    port = int(suite.platform.url.rsplit(':', 1)[1])
    with socket.create_server(('0.0.0.0', 0)) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        own = server.getsockname()[1]
        datagrams.bind(('0.0.0.0', own))
        datagrams.setblocking(False)
        addresses = sorted(set(host_addresses()) | {'10.88.64.1', '127.0.0.1', '0.0.0.0'})
        reached = reach(suite, [(address, number) for address in addresses for number in (port, own, 22, 53)])
        server.settimeout(0.05)
        try:
            raise AssertionError(f'the host was reached by {server.accept()[1]}')
        except TimeoutError:
            pass
        try:
            raise AssertionError(f'a datagram came from {datagrams.recvfrom(10)[1]}')
        except BlockingIOError:
            pass
    assert not reached, reached
    return f'{len(addresses)} addresses'


@attack('neighbours', 'other instances, by every address near one\'s own', 'nothing reached', 'isolated bridge ports; nftables')
def _(suite):
    with Occupied(suite, 'neighbour') as neighbour:
        address = re.search(r'inet ([\d.]+)', neighbour.command('ip', '-4', '-o', 'addr', 'show', 'eth0')).group(1)
        suite.deploy(python=OWN_ADDRESS + f'''
base = own_address().rsplit('.', 1)[0]
targets = {{(f'{{base}}.{{n}}', 8080) for n in range(2, 255)}} | {{({address!r}, 8080)}}
targets.discard((own_address(), 8080))
print(json.dumps(connect(*targets)))
''', network='bridge')
        reached = suite.result()
        assert not reached, reached
        return f'{address} not reached'


@attack('metadata', 'the metadata services of clouds', 'no packet arrives', 'nftables: 169.254.0.0/16, and those that are elsewhere')
def _(suite):
    reached = reach(suite, [(address, 80) for address in suite.world.metadata.addresses])
    assert not reached, reached
    suite.nothing_arrived(suite.world.metadata)
    return 'nothing arrived'


@attack('lan-forbidden', 'a LAN that the operator forbids', 'no packet arrives', 'nftables: WORKER_NETWORK_DENY')
def _(suite):
    reached = reach(suite, [(LAN, port) for port in PORTS], network_allow=[f'{LAN}', f'{WEB}:80']) + reach(suite, [(LAN, port) for port in PORTS])
    assert not reached, reached
    suite.nothing_arrived(suite.world.lan)
    return 'nothing arrived'


@attack('allow-list', 'what is not in the function\'s allow-list', 'only what is listed arrives', 'nftables: a set of source, destination, protocol, port')
def _(suite):
    targets = [(host, port) for host in (WEB, SECOND, DNS) for port in PORTS]
    reached = reach(suite, targets, network_allow=[f'{WEB}:443', f'{SECOND}:80-90/tcp'])
    assert reached == [f'{WEB}:443', f'{SECOND}:80'], reached
    suite.nothing_arrived(suite.world.internet, but=lambda packet: (packet.target, packet.port, packet.protocol) in ((WEB, 443, 6), (WEB, 443, 17), (SECOND, 80, 6)))
    return ', '.join(reached)


@attack('allow-list-names', 'a name in the allow-list, other names, other ports', 'only that name\'s address and port', 'names resolved by the worker')
def _(suite):
    suite.deploy(python=f'''
address = socket.gethostbyname('second.example')
print(json.dumps([address, connect((address, 443), (address, 80), ({WEB!r}, 443))]))
''', network='bridge', network_allow=['second.example:443'])
    address, reached = suite.result()
    assert address == SECOND and reached == [f'{SECOND}:443'], (address, reached)
    suite.nothing_arrived(suite.world.internet, but=lambda packet: (packet.target, packet.port) in ((SECOND, 443), (DNS, 53)))
    return f'{address}, {reached}'


@attack('allow-list-rebound', 'names in the allow-list whose name server gives addresses of the metadata service, the forbidden LAN, the gateway and the host', 'no packet arrives',
        'what is forbidden comes before the allow-list')
def _(suite):
    names = ('metadata.example', 'lan.example', 'gateway.example', 'host.example')
    with socket.create_server(('0.0.0.0', 0)) as server:
        own = server.getsockname()[1]
        suite.deploy(python=f'''
addresses = [socket.gethostbyname(name) for name in {names!r}]
print(json.dumps([addresses, connect(*((address, port) for address in addresses for port in (80, {own}, {int(suite.platform.url.rsplit(":", 1)[1])})))]))
''', network='bridge', network_allow=list(names))
        addresses, reached = suite.result()
        server.setblocking(False)
        try:
            raise AssertionError(f'the host was reached by {server.accept()[1]}')
        except BlockingIOError:
            pass
    assert addresses == [NAMES[name] for name in names] and not reached, (addresses, reached)
    suite.nothing_arrived(suite.world.metadata)
    suite.nothing_arrived(suite.world.lan)
    return f'resolved, none of {len(addresses)} reached'


@attack('dns', 'names (what a function may do)', 'resolved', 'WORKER_DNS')
def _(suite):
    suite.deploy(python='print(json.dumps(socket.gethostbyname("web.example")))', network='bridge')
    address = suite.result()
    assert address == WEB, address
    return address


@attack('dns-tunnel', 'questions to the name server from a function whose list has addresses only', 'no question arrives', 'nftables: the name server is for lists with names')
def _(suite):
    suite.deploy(python=f'''
attempt('lookup', lambda: socket.gethostbyname('secret-of-the-function.example'))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for port in (53, 5353): s.sendto(b'x' * 40, ({DNS!r}, port))
print(json.dumps(tried))
''', network='bridge', network_allow=[f'{WEB}:443'], timeout_ms=20000, env={'RES_OPTIONS': 'timeout:1 attempts:1'})
    tried = suite.result()
    assert tried['lookup'][0] == 'refused', tried
    assert not suite.world.names.asked, suite.world.names.asked
    suite.nothing_arrived(suite.world.internet)
    return 'nothing arrived'


@attack('false-source', 'packets with another\'s address, by bind, freebind, transparent and raw sockets', 'refused; no packet arrives',
        'no capabilities; seccomp; nftables: source must be one\'s own')
def _(suite):
    suite.refused(f'''
def send(level, option, source):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        if option: s.setsockopt(level, option, 1)
        s.bind((source, 5353))
        s.sendto(b'x', ({WEB!r}, 80))
        raise OSError(errno.ENODATA, '')  # it was sent: what arrives is looked at outside
for source in ('203.0.113.77', '10.88.64.1', '10.88.99.99', {LAN!r}):
    attempt('bind ' + source, lambda: send(0, 0, source))
    attempt('freebind ' + source, lambda: send(0, 15, source))
    attempt('transparent ' + source, lambda: send(0, 19, source))
attempt('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 255))
''', network='bridge')
    suite.nothing_arrived(suite.world.internet)
    return 'refused, nothing arrived'


@attack('false-frames', 'frames and ARP claims with a neighbour\'s or the gateway\'s MAC and address, by somebody with every right over the namespace',
        'no frame passes the port', 'nftables in the bridge: own MAC and address only')
def _(suite):
    gateway = socket.inet_aton('10.88.64.1')

    def checksum(header):
        total = sum(struct.unpack(f'!{len(header) // 2}H', header))
        total = (total & 0xffff) + (total >> 16)
        return ~(total + (total >> 16)) & 0xffff

    def udp(source, target):
        body = struct.pack('!HHHH', 5353, 80, 9, 0) + b'x'
        header = struct.pack('!BBHHHBBH', 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0) + source + target
        return header[:10] + struct.pack('!H', checksum(header)) + header[12:] + body

    def arp(operation, mac, source, target):
        return struct.pack('!HHBBH', 1, 0x0800, 6, 4, operation) + mac + source + b'\0' * 6 + target

    with Occupied(suite, 'spoofer') as spoofer, Occupied(suite, 'victim') as victim:
        def facts(one):
            text = one.command('ip', '-o', 'addr', 'show', 'eth0') + one.command('ip', '-o', 'link', 'show', 'eth0')
            return (bytes.fromhex(re.search(r'link/ether ([\w:]+)', text).group(1).replace(':', '')),
                    socket.inet_aton(re.search(r'inet ([\d.]+)', text).group(1)))
        (mac, address), (his_mac, his_address) = facts(spoofer), facts(victim)
        with open('/sys/class/net/faas0/address', encoding='ascii') as file:
            bridge = bytes.fromhex(file.read().strip().replace(':', ''))
        wide, web = b'\xff' * 6, socket.inet_aton(WEB)
        true = bridge + mac + b'\x08\0' + udp(address, web)
        false = [
            bridge + his_mac + b'\x08\0' + udp(his_address, web), bridge + mac + b'\x08\0' + udp(his_address, web),
            bridge + his_mac + b'\x08\0' + udp(address, web), bridge + mac + b'\x08\0' + udp(socket.inet_aton('203.0.113.1'), web),
            bridge + mac + b'\x08\0' + udp(b'\0\0\0\0', web), bridge + mac + b'\x81\0\0\1\x08\0' + udp(address, web),
            wide + mac + b'\x08\x06' + arp(1, mac, his_address, gateway), wide + mac + b'\x08\x06' + arp(2, mac, gateway, his_address),
            his_mac + mac + b'\x08\x06' + arp(2, mac, gateway, his_address), bridge + mac + b'\x86\xdd' + b'\x60' + b'\0' * 60,
            wide + mac + b'\x08\0' + udp(address, b'\xff' * 4), b'\x01\x00\x5e\0\0\xfb' + mac + b'\x08\0' + udp(address, socket.inet_aton('224.0.0.251')),
            b'\x01\x80\xc2\0\0\0' + mac + b'\0\x26' + b'\x42\x42\x03' + b'\0' * 60]

        def send(frames):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(('eth0', 0))
                for frame in frames:
                    raw.send(frame)
        on_bridge, at_victim = Sniffer('faas0'), victim.inside(lambda: Sniffer('eth0'))
        suite.world.clear()
        spoofer.inside(lambda: send([true]))
        assert settle(lambda: [p for p in suite.world.internet.sniffer.take() if p.port == 80]), 'not even its own frame arrives'
        on_bridge.take()
        at_victim.take()
        spoofer.inside(lambda: send(false))
        suite.nothing_arrived(suite.world.internet)
        neighbours = subprocess.run(['ip', 'neigh', 'show', 'dev', 'faas0'], capture_output=True, text=True, check=True).stdout
        claimed = [line for line in neighbours.splitlines() if mac.hex(':') in line and not line.startswith(socket.inet_ntoa(address) + ' ')]
        assert not claimed, claimed
        # Of those that were sent: the host's own frames, of the bridge and of its end of a link, come to an instance, too.
        passed = [packet for packet in on_bridge.take() + at_victim.take() if packet.mac in (mac, his_mac)]
        assert not passed, passed
        return f'{len(false)} frames, none passed'


@attack('broadcast', 'broadcast, multicast, DHCP, IGMP', 'no packet arrives at the bridge', 'nftables in the bridge')
def _(suite):
    on_bridge = Sniffer('faas0')
    suite.deploy(python='''
sent = 0
for target in ('255.255.255.255', '10.88.127.255', '224.0.0.251', '239.1.2.3'):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for port in (67, 5353, 9):
            try: sent += s.sendto(b'x', (target, port)) > 0
            except OSError: pass
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    try: s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('239.1.2.3') + b'\\0' * 4)
    except OSError: pass
print(json.dumps(sent))
''', network='bridge')
    sent = suite.result()
    came = [packet for packet in on_bridge.take() if packet.type == 0x0800]
    assert sent and not came, (sent, came)
    return f'{sent} sent, none arrived'


@attack('ipv6', 'IPv6, link-local addresses and neighbours', 'no address, nothing reached', 'IPv6 is off in the namespace')
def _(suite):
    return suite.refused('''
def link_local():
    addresses = [line for line in open('/proc/net/if_inet6') if not line.rstrip().endswith('lo')]
    if not addresses: raise OSError(errno.ENODATA, '')
    return addresses
attempt('address', link_local)
def connect6(address):
    with socket.socket(socket.AF_INET6) as s:
        s.settimeout(0.5)
        s.connect((address, 80, 0, socket.if_nametoindex('eth0')))
attempt('all nodes', lambda: connect6('ff02::1'))
attempt('link-local', lambda: connect6('fe80::1'))
attempt('global', lambda: connect6('2001:db8::1'))
''', network='bridge')


@attack('flows', 'a hundred thousand flows, to fill the table of connections that the host has for all', 'others still get theirs; gone with the instance', 'nftables: connections of one instance are bounded; ctnetlink')
def _(suite):
    suite.deploy(python=f'''
sent, until = 0, time.monotonic() + {3 * PATIENCE}
while time.monotonic() < until and sent < 100000:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for port in range(1000, 1400):
            try: s.sendto(b'x', ({WEB!r}, port)); sent += 1
            except OSError: pass
print(json.dumps(sent))
''', network='bridge')
    sent, count = suite.result(), tracked_to(WEB)
    assert 0 < count < 6000, f'{count} connections are tracked after {sent} flows'
    # An instance that ends takes its connections with it, long before they expire.
    suite.clean()
    assert settle(lambda: not tracked_to(WEB), 20), f'{tracked_to(WEB)} connections of {count} are tracked when the instance is gone'
    return f'{sent} flows, {count} tracked, none afterwards'


@attack('bandwidth', 'as much as can be sent, with network_kbps 4000', 'no more than the rate', 'token bucket on both ends of the veth pair')
def _(suite):
    suite.deploy(python=f'''
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
start, until = time.monotonic(), time.monotonic() + 1.5
while time.monotonic() < until:
    try: s.sendto(b'x' * 1400, ({WEB!r}, 9))
    except OSError: time.sleep(0.001)
print(json.dumps(time.monotonic() - start))
''', network='bridge', network_kbps=4000)
    seconds = suite.result()
    received = sum(1400 for packet in suite.world.internet.sniffer.take() if packet.port == 9)
    rate = received * 8 / seconds / 1000
    assert 0 < rate < 4000 * 1.5, f'{rate:.0f} kbit/s of 4000'
    return f'{rate:.0f} kbit/s'


class Pourer:
    """A server of the internet that sends to whoever speaks to it, ten times as much as the rate, until the block ends."""

    def __init__(self, suite, kbps):
        self.socket = in_namespace(suite.world.internet.descriptor, self._bind)
        self.pause, self.sent, self.stopped = 4 * 1400 * 8 / (10000 * kbps), 0, threading.Event()
        self.thread = threading.Thread(target=self._pour)

    @staticmethod
    def _bind():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind((WEB, 7))
        server.settimeout(0.1)
        return server

    def _pour(self):
        client = None
        while not self.stopped.is_set():
            try:
                client = client or self.socket.recvfrom(100)[1]
                self.sent += sum(self.socket.sendto(b'x' * 1400, client) for _ in range(4))
            except OSError:
                continue
            time.sleep(self.pause)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        self.socket.close()


@attack('bandwidth-in', 'as much as a server can send to it, with network_kbps 4000', 'no more than the rate', 'token bucket on both ends of the veth pair')
def _(suite):
    suite.deploy(python=f'''
s, received, seconds = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), 0, 0
s.sendto(b'x', ({WEB!r}, 7))
s.settimeout(5 * PATIENCE)
received = len(s.recv(2000))
start = time.monotonic()
while seconds < 1.5:
    received += len(s.recv(2000))
    seconds = time.monotonic() - start
print(json.dumps([received, seconds]))
''', network='bridge', network_kbps=4000)
    with Pourer(suite, 4000) as server:
        received, seconds = suite.result()
        sent = server.sent
    rate = received * 8 / seconds / 1000
    assert sent > 2 * received, f'{sent} bytes were sent and {received} received: that was no attack'
    assert 0 < rate < 4000 * 1.5, f'{rate:.0f} kbit/s of 4000'
    return f'{rate:.0f} kbit/s of {sent * 8 / seconds / 1000:.0f}'
