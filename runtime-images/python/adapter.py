"""Runs Python functions inside an instance; the other side is src/init/protocol.h.

    python3 adapter.py process main.py          a zygote: forks a child for each invocation
    python3 adapter.py handler main.handler     loads the module once, calls the handler once per invocation
    python3 adapter.py generic                  becomes one of the two when it is told which (a LOAD frame)

Descriptor 3 is a socket: to faas-init (process) or to the worker (handler). When it is not (somebody
runs the bundle by hand), one invocation is served with the standard streams. A generic one has the worker's
socket as 3 and faas-init's as 4, and keeps the one that its role has, as 3.

A script must find what `python3 main.py` would give it, and a handler's module what an import in a
fresh interpreter would: so this program imports little before it is known that it does not shadow a
module of the function's own, and hides what it has of its own (socket, modules, stack frames).

It is a small file because an interpreter compiles the file that it is started with each time; the
parts, in faas_adapter/, come compiled.
"""

import sys

fresh = frozenset(sys.modules)  # what every interpreter has after its start

import gc
import os

folder = os.path.dirname(os.path.abspath(__file__))
if sys.path[:1] != [folder]:  # PYTHONSAFEPATH
    sys.path.insert(0, folder)

from faas_adapter import modules


def hide():
    """From here on nothing of the adapter can be imported or found."""
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "faas_adapter"]:
        del sys.modules[name]
    for path in [path for path in sys.path_importer_cache if path.startswith(folder)]:
        del sys.path_importer_cache[path]


def start_process(script):
    from faas_adapter.zygote import run_process

    hide()
    run_process(script)


def start_handler(path):
    from faas_adapter.handler import run_handler

    hide()
    run_handler(path)


def start_generic():
    try:
        from faas_adapter.handler import run_handler

        usual_modules = frozenset(sys.modules)
        from faas_adapter.keeper import Keeper
        from faas_adapter.zygote import run_process

        hide()
        zygote, mode, target = Keeper(usual_modules).take_role()
    except Exception:
        os._exit(1)  # not a word: it would stand in the log of whose instance this becomes, which starts as usual then
    if mode == "process":
        run_process(target, zygote)
    run_handler(target, zygote.library)


def main():
    arguments = sys.argv[1:]
    gc.disable()
    modules.fresh = fresh
    modules.hold_back()
    if arguments == ["generic"]:
        start_generic()
    elif len(arguments) == 2 and arguments[0] == "process":
        start_process(arguments[1])
    elif len(arguments) == 2 and arguments[0] == "handler":
        start_handler(arguments[1])
    sys.exit("usage: adapter.py process SCRIPT | handler MODULE.FUNCTION | generic")


if __name__ == "__main__":
    main()
