"""The connections that the kernel tracks in this network namespace, asked over ctnetlink (linux/netfilter/nfnetlink_conntrack.h)."""
import socket
import struct

NETLINK_NETFILTER = 12
GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
REQUEST_DUMP = 0x301
ERROR, DONE = 2, 3
ORIGINAL, ADDRESSES, TARGET = 1, 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_IP, CTA_IP_V4_DST


def attributes(data):
    """{type: value} of netlink attributes, without the flags of the type."""
    found = {}
    while len(data) >= 4:
        size, kind = struct.unpack('=HH', data[:4])
        if size < 4:
            break
        found[kind & 0x3fff] = data[4:size]
        data = data[(size + 3) & ~3:]
    return found


def messages(stream):
    """(type, payload) of each netlink message until the end of a dump."""
    while True:
        data = stream.recv(1 << 20)
        while len(data) >= 16:
            size, kind = struct.unpack('=IH', data[:6])
            if kind == DONE:
                return
            if kind == ERROR:
                raise OSError(-struct.unpack('=i', data[16:20])[0], 'ctnetlink')
            yield kind, data[16:size]
            data = data[(size + 3) & ~3:]


def tracked_to(address):
    """How many tracked connections were begun towards this IPv4 address."""
    wanted, count = socket.inet_aton(address), 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as stream:
        stream.send(struct.pack('=IHHIIBBH', 20, GET, REQUEST_DUMP, 1, 0, socket.AF_INET, 0, 0))
        for _, payload in messages(stream):
            original = attributes(attributes(payload[4:]).get(ORIGINAL, b''))
            count += attributes(original.get(ADDRESSES, b'')).get(TARGET) == wanted
    return count
