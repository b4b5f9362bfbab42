"""JSON with large strings in it, at the speed of a search: Python's own json looks at each character of them by itself. What is
quick here is exact, and whatever is not plain (escapes, depth, many strings) is left to Python's own."""

import json

from faas_adapter.frames import LargeBody, Payload

LARGE = 64 * 1024  # characters of a string
STRINGS_MAX = 64  # looked at in a text, before it is taken for one of many small strings
VALUES_MAX = 16  # in a list or an object of a result
DEPTH_MAX = 2
FIRST_PIECE = 1024  # what is looked for is near, as a rule
PIECE = 128 * 1024  # is looked through for two characters one after the other, the second time in the processor's cache
scan_once = json.JSONDecoder().scan_once
MARK = "\ud800"  # for a large string in a result: no text that can be sent has it


# ---- in ----


def decode(body):
    """json.loads() of bytes, a Payload or a LargeBody that have been found to be JSON before: control characters are not looked for in
    large strings. A LargeBody is empty then: the function's memory is small enough without it."""
    if type(body) is bytes and len(body) < LARGE:
        return decode_small(body)
    if type(body) is LargeBody:
        body = body.take()
    value = None
    if len(body) >= LARGE:
        try:
            value = decode_around(body)
        except ValueError:
            pass  # Python's own will say what it is
    return json.loads(bytes(body[:]) if type(body) is Payload else body) if value is None else value


def decode_small(body):
    """What begins and ends with its value is in UTF-8, and takes one call; json.loads() looks for that first, and for space around it."""
    try:
        text = str(body, "utf-8")
        value, end = scan_once(text, 0)
        if end == len(text):
            return value
    except (ValueError, StopIteration):
        pass  # Python's own will say what it is
    return json.loads(body)


def decode_around(body):
    """None if there are no large strings, or too little is plain. Python's own decodes what is around them, where NaN stands
    for each: JSON has none. It meets them in the order of the text."""
    view = body if type(body) is Payload else memoryview(body)
    rest, strings, end = [], [], 0
    for first, last in large_strings(body):
        rest += (view[end:first], b"NaN")
        strings.append(str(view[first + 1 : last], "utf-8"))
        end = last + 1
    text = b"".join((*rest, view[end:])) if strings else b""
    if not strings or text.count(b"NaN") + text.count(b"Infinity") != len(strings):
        return None
    in_order = iter(strings)
    return json.JSONDecoder(parse_constant=lambda _: next(in_order)).decode(text.decode())


def large_strings(body):
    """(where its first quote is, where its last) of each, as far as the text is plain."""
    end = 0
    for _ in range(STRINGS_MAX):
        first = opening_quote(body, end)
        last = closing_quote(body, first + 1) if first >= 0 else -1
        if last < 0:
            return
        if last - first > LARGE:
            yield first, last
        end = last + 1


def pieces_from(body, at):
    """(where it begins, a piece)"""
    size = FIRST_PIECE
    while at < len(body):
        yield at, bytes(body[at : at + size])
        at += size
        size = min(2 * size, PIECE)


def opening_quote(body, start):
    """Where the first quote is; -1 if there is none."""
    for at, piece in pieces_from(body, start):
        quote = piece.find(b'"')
        if quote >= 0:
            return at + quote
    return -1


def closing_quote(body, start):
    """Where the first quote is; -1 if there is none, or a backslash before it."""
    for at, piece in pieces_from(body, start):
        quote = piece.find(b'"')
        if piece.find(b"\\", 0, quote if quote >= 0 else len(piece)) >= 0:
            return -1
        if quote >= 0:
            return at + quote
    return -1


def is_plain(text):
    """Whether there are neither quotes nor backslashes."""
    for at in range(0, len(text), PIECE):
        if text.find('"', at, at + PIECE) >= 0 or text.find("\\", at, at + PIECE) >= 0:
            return False
    return True


# ---- out ----

ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
MAKE_ENCODER = json.encoder.c_make_encoder
ENCODE_STRING = json.encoder.encode_basestring

def encode_text(value):
    """What ENCODER.encode() makes of it, which goes a longer way to Python's encoder in C."""
    if MAKE_ENCODER is None:
        return ENCODER.encode(value)
    return "".join(MAKE_ENCODER({}, ENCODER.default, ENCODE_STRING, None, ":", ",", False, False, False)(value, 0))


def encode(value):
    """What encode_text() makes of it, in pieces: UTF-8, or text that is ASCII. In large strings control characters are left as they
    are. Raises what encode_text() raises."""
    if has_large(value, DEPTH_MAX):
        try:
            pieces = encode_around(value)
            if pieces:
                return pieces
        except (TypeError, ValueError, RecursionError):
            pass  # it may be the copy that is wrong: without one, it is said of the original
    return [encode_text(value).encode()]


def has_large(value, depth):
    kind = type(value)
    if kind is str:
        return len(value) >= LARGE
    if kind not in (dict, list) or depth == 0 or len(value) > VALUES_MAX:
        return False
    for item in value.values() if kind is dict else value:
        if type(item) in (str, dict, list) and has_large(item, depth - 1):
            return True
    return False


def encode_around(value):
    """None if no large string is plain, or there are marks of the function's own."""
    strings = []
    copy = mark_strings(value, strings, DEPTH_MAX)
    around = encode_text(copy).split(f'"{MARK}"') if strings else []
    return weave(around, strings) if len(around) == len(strings) + 1 else None


def mark_strings(value, strings, depth):
    """`value`, or a copy of it without its large strings, which are appended to `strings`."""
    kind = type(value)
    if not has_large(value, depth):
        return value
    if kind is list:
        return [mark_strings(item, strings, depth - 1) for item in value]
    if kind is dict:
        return {key: mark_strings(item, strings, depth - 1) for key, item in value.items()}
    plain = plain_text(value)
    if plain is None:
        return value
    strings.append(plain)
    return MARK


def plain_text(text):
    """As a piece of the answer; None if it has a quote or backslash. Control characters stay: the worker, which checks a result
    anyway, escapes them. It raises what UTF-8 has no form of."""
    if not is_plain(text):
        return None
    return text if text.isascii() else text.encode()


def weave(around, strings):
    pieces = [around[0].encode() + b'"']
    for plain, text in zip(strings, around[1:]):
        pieces += (plain, b'"' + text.encode() + b'"')
    pieces[-1] = pieces[-1][:-1]
    return pieces
