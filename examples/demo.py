#!/usr/bin/env python3
"""The platform's main job, to watch: starts a controller and a worker, deploys the examples through the HTTP API, invokes each, shows
result, log and figures, stops everything, and looks whether anything is left behind. `./build.sh demo` prepares what this needs.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), 'tests', 'e2e'))
sys.dont_write_bytecode = True

from faas_platform import Platform, archive, host_state  # noqa: E402 (its folder has just been added)

COLOURS = sys.stdout.isatty() and not os.environ.get('NO_COLOR')
WIDTH = min(shutil.get_terminal_size((110, 24)).columns, 120)

# Folder, what it shows, and the payloads to call it with.
EXAMPLES = [
    ('python/hello', 'the old platform\'s sample, unmodified', [{'name': 'you'}, {'name': 'you, now warm'}]),
    ('python/handler', 'a handler, loaded once', [{'text': 'the cat and the dog and the bird'}, {'text': 'one more, the second call'}]),
    ('nodejs/process', 'a Node.js script', [{'text': 'hash me'}]),
    ('nodejs/handler', 'an asynchronous handler', [{'items': ['alpha', 'beta']}]),
    ('go/hello', 'Go, compiled when deployed', [{'up_to': 40}]),
    ('native/c', 'a C program', [{'any': 'payload'}]),
    ('native/shell', 'a shell script looks at its container', [{}]),
    ('python/error', 'a function that fails', [{'number': 'seven'}]),
    ('python/slow', 'a function that takes longer than its 1 s', [{'seconds': 30}]),
]
EXPECTED = {'python/error': 'failed', 'python/slow': 'timed_out'}


def paint(code, text):
    return f'\033[{code}m{text}\033[0m' if COLOURS else str(text)


def bold(text):
    return paint('1', text)


def dim(text):
    return paint('2', text)


def heading(text):
    print('\n' + bold(text) + '\n' + dim('─' * WIDTH), flush=True)


def duration(nanoseconds):
    return f'{nanoseconds / 1e6:.1f} ms' if nanoseconds >= 1e6 else f'{nanoseconds / 1e3:.0f} µs'


def show_text(label, text, colour=None):
    lines = []
    for line in str(text).rstrip('\n').splitlines() or ['']:
        # What a function wrote must not steer the terminal.
        clean = ''.join(character if character.isprintable() else '?' for character in line)
        lines += textwrap.wrap(clean, WIDTH - 14) or ['']
    for number, line in enumerate(lines):
        print(f'    {dim(f"{label if number == 0 else chr(32):<8}")} {paint(colour, line) if colour else line}')


def show_execution(execution):
    status, metrics = execution['status'], execution['metrics']
    colour = '32' if status == 'succeeded' else '31'
    start = f'cold start {duration(metrics["start_time"])}' if execution['cold_start'] else 'warm'
    print(f'    {dim("status  ")} {paint(colour, status)} in {bold(duration(metrics["duration"]))}, {start}')
    if execution.get('error'):
        show_text('error', f'{execution["error"]["type"]}: {execution["error"]["message"]}', '31')
        for frame in execution['error'].get('stack') or []:
            show_text('', frame)
    else:
        show_text('result', json.dumps(execution['result'], ensure_ascii=False))
    if execution['logs']:
        show_text('log', execution['logs'], '36')
    print(f'    {dim("metrics ")} memory {metrics["memory_peak"] / 2 ** 20:.1f} MiB · cpu {duration(metrics["cpu_time"])} · '
          f'queued {duration(metrics["queue_time"])} · network in {metrics["network_in"]} B, out {metrics["network_out"]} B', flush=True)


def read_folder(path):
    """{relative path: bytes}, and what faas.json says."""
    files, settings = {}, {}
    for root, _, names in os.walk(path):
        for name in names:
            with open(os.path.join(root, name), 'rb') as file:
                files[os.path.relpath(os.path.join(root, name), path)] = file.read()
    if 'faas.json' in files:
        settings = json.loads(files.pop('faas.json'))
    return files, settings


def compile_c(path):
    """The C example as what is deployed: one executable."""
    with tempfile.TemporaryDirectory(prefix='demo-c-') as folder:
        program = os.path.join(folder, 'bootstrap')
        subprocess.run([os.environ.get('CC', 'cc'), '-O2', '-static', '-s', '-o', program, os.path.join(path, 'hello.c')], check=True)
        with open(program, 'rb') as file:
            return {'bootstrap': file.read()}


def run_example(platform, folder, title, payloads):
    path, name = os.path.join(HERE, folder), folder.replace('/', '-')
    files, settings = read_folder(path)
    if folder == 'native/c':
        files = compile_c(path)
    heading(f'{name}  {title}')
    begun = time.monotonic()
    function = platform.deploy(name, code=archive(files), **settings)
    limits = f'{function["memory_mb"]} MiB, {function["cpus"]:g} CPU, {function["timeout_ms"] / 1000:g} s, network {function["network"]}'
    print(f'  deployed {function["runtime"]} {function["contract"]} version {function["version"]} in {duration((time.monotonic() - begun) * 1e9)}  {dim(limits)}')
    if function['state'] != 'ready':
        show_text('build', function.get('build_output', function['state']), '31')
        return False
    good = True
    for payload in payloads:
        print(f'\n  {bold("invoke")} {json.dumps(payload, ensure_ascii=False)}')
        execution = platform.invoke(name, payload)
        show_execution(execution)
        good = good and execution['status'] == EXPECTED.get(folder, 'succeeded')
    return good


def run_async(platform):
    heading('python-hello, asynchronously  stored before the answer, run afterwards')
    begun = time.monotonic()
    execution_id = platform.invoke_async('python-hello', {'name': 'later'})
    print(f'  accepted in {duration((time.monotonic() - begun) * 1e9)}: {execution_id}')
    execution = platform.wait_execution(execution_id)
    show_execution(execution)
    return execution['status'] == 'succeeded'


def run_many(platform):
    heading('python-handler, 200 calls in a row')
    times = []
    for number in range(200):
        begun = time.monotonic()
        execution = platform.invoke('python-handler', {'text': f'call number {number}'})
        times.append((time.monotonic() - begun) * 1e9)
        if execution['status'] != 'succeeded':
            show_execution(execution)
            return False
    times.sort()
    print(f'  as the caller sees it, over HTTP with a new connection each: median {bold(duration(times[100]))}, '
          f'99 of 100 within {duration(times[197])}')
    return True


def stop(platform):
    heading('Stopping')
    begun = time.monotonic()
    status = platform.stop()
    print(f'  faas up ended with status {status} after {duration((time.monotonic() - begun) * 1e9)}')
    left = platform.leftovers()
    if left:
        print(paint('31', '  left behind:'))
        for line in left:
            print('    ' + line)
    else:
        print(paint('32', '  nothing is left behind: no process, container, mount, cgroup, network link, packet filter rule or run-time file'))
    return status == 0 and not left


def main():
    if os.geteuid() != 0:
        sys.exit('demo: containers need root; ./build.sh demo asks sudo for it')
    print(bold('Starting a controller and a worker') + dim('  (faas up, with a temporary data folder)'), flush=True)
    if any('faas-worker' in line for line in host_state()):
        # Another platform runs here, and its containers come and go: only what is this one's can be held against it.
        os.environ['FAAS_TEST_SHARED_HOST'] = '1'
    platform = Platform({'LOG_LEVEL': 'info'})
    good = {}
    try:
        begun = time.monotonic()
        platform.start()
        print(f'  ready at {platform.url} after {duration((time.monotonic() - begun) * 1e9)}')
        for folder, title, payloads in EXAMPLES:
            good[folder] = run_example(platform, folder, title, payloads)
        good['async'] = run_async(platform)
        good['many'] = run_many(platform)
        good['stop'] = stop(platform)
    finally:
        platform.kill()
        if not all(good.values()) or 'stop' not in good:
            print(dim('\nthe end of its log:\n') + platform.log_tail(3000), file=sys.stderr)
        platform.cleanup()
    heading('Done')
    bad = [name for name, fine in good.items() if not fine]
    if bad:
        print(paint('31', f'  not as it should be: {", ".join(bad)}'))
        return 1
    print(f'  {len(EXAMPLES)} functions in four languages, both contracts, a failure, a timeout, an asynchronous call: all as they should be.')
    print(f'  Your turn: {bold("build/bin/faas up")}, and in another terminal {bold("build/bin/faas new hello --runtime python")}. See README.md.')
    return 0


if __name__ == '__main__':
    sys.exit(main())
