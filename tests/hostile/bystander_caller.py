"""The only caller of one bystander: a program of its own, so that nothing the suite does in Python delays it.

    bystander_caller.py URL NAME CONTRACT      the token is in FAAS_TOKEN

Calls all the time, with a payload that is new each time, and writes a line for each answer: {"seconds"} or, when it was not as it must
be, {"seconds", "wrong"}. Ends when its standard input does."""
import hashlib
import json
import os
import select
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'e2e'))
from faas_platform import http  # pylint: disable=wrong-import-position

PAUSE = 0.02
CALL_TIMEOUT = 120


def call(url, contract, number):
    """One line of the answer's."""
    payload = json.dumps({'n': number, 'who': contract}, separators=(',', ':')).encode()
    headers = {'Content-Type': 'application/json', 'Authorization': 'Bearer ' + os.environ['FAAS_TOKEN']}
    start = time.monotonic()
    try:
        answer = http('POST', url, payload, headers, CALL_TIMEOUT)
    except Exception as error:  # pylint: disable=broad-except
        return {'seconds': time.monotonic() - start, 'wrong': repr(error)}
    told = {'seconds': time.monotonic() - start}
    execution = answer.json() if answer.status == 200 else {}
    if execution.get('status') != 'succeeded' or execution.get('result') != {'sum': hashlib.sha256(payload).hexdigest()}:
        told['wrong'] = str(execution or answer)
    return told


def main(url, name, contract):
    # It stands for a caller elsewhere, whom no work of this machine delays.
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    number = 0
    while not select.select([sys.stdin], [], [], PAUSE)[0]:
        number += 1
        print(json.dumps(call(f'{url}/v1/functions/{name}/invocations', contract, number)), flush=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
