"""What is imported, from where, and what of it the function sees."""

import itertools
import os
import sys

# Imported before there is an invocation: what most functions use, and what the adapter uses itself.
PRELOAD = ("json", "re")
# Not imported ahead, whatever a script names: what has its effect when it is imported.
NEVER_AHEAD = frozenset(("this", "antigravity", "readline", "rlcompleter", "idlelib", "test", "turtle", "turtledemo"))
# Every file of the adapter begins with it.
OWN_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")

shadowing = set()  # names of the standard library that the function has modules of
fresh = frozenset()  # modules that every interpreter has after its start; adapter.py knows them
held_back = []  # folders of PYTHONPATH
entered = []  # the function's folders, once they are in sys.path


def hold_back():
    """Takes the function's own folders out of sys.path until its code is looked for. (The standard library's folder may be
    named too.)"""
    named = {os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path}
    held_back[:] = [path for path in sys.path if path in named and path != os.path.dirname(os.__file__)]
    sys.path[:] = [path for path in sys.path if path not in held_back]


def preload(names):
    """Imports ahead of need, while the function's folder is not in sys.path."""
    for name in names:
        try:
            __import__(name)
        except ImportError:
            pass  # a smaller Python than usual; the function will say so if it matters


def imports_of(source):
    """What a script imports at its outermost level: (module, names taken from it). Lines of a text that look like it do no
    harm."""
    import re

    for match in re.finditer(rb"^(?:from[ \t]+([\w.]+)[ \t]+)?import[ \t]+([\w., \t]+)", source, re.MULTILINE):
        parts = [part.split()[0].decode() for part in match[2].split(b",") if part.strip()]
        if match[1]:
            yield match[1].decode(), parts
        else:
            yield from ((part, ()) for part in parts)


def import_ahead(source):
    """Imports what a script will, as far as it is the standard library's and says nothing when it is imported, while the
    function's folder is not in sys.path."""
    import warnings

    if not source:
        return
    own = own_modules()
    standard = getattr(sys, "stdlib_module_names", frozenset()) - NEVER_AHEAD
    for module, names in imports_of(source):
        top = module.partition(".")[0]
        runs = "__main__" in (*module.split("."), *names)  # a package's program
        if top in standard and top not in own and not runs:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    __import__(module, fromlist=names)
            except Exception:
                pass  # the script will see it for itself


def own_modules():
    """Names that the function's folders may have modules of."""
    names = set()
    for folder in (os.curdir, *held_back):
        try:
            names.update(entry.split(".", 1)[0] for entry in os.listdir(folder))
        except OSError:
            pass
    return names


def enter_folder(script=True):
    """Puts the function's folder where a script's folder is (unless PYTHONSAFEPATH says that a script's is not wanted).
    When its code has modules that are named like ones imported here, the fresh interpreter's set of modules is restored, so
    that imports find what they would find without this adapter."""
    own = own_modules()
    safe = script and getattr(sys.flags, "safe_path", False)
    entered[:] = ([] if safe else [os.getcwd()]) + held_back
    sys.path[0:0] = entered
    shadowing.update(own & getattr(sys, "stdlib_module_names", frozenset()))
    if any(name in sys.modules and name not in fresh for name in own):
        for name in set(sys.modules) - fresh:
            del sys.modules[name]


class StandardLibrary:
    """While it is entered, the adapter imports from the standard library, also once the function's folder is in sys.path; so do modules
    that import others when they are first used. The function's own modules of such names stay what its imports find."""

    def __enter__(self):
        if shadowing:
            self.path = sys.path[:]
            sys.path[:] = [folder for folder in self.path if folder not in entered]
            self.own = take_shadowing()

    def __exit__(self, *_):
        if shadowing:
            take_shadowing()
            sys.modules.update(self.own)
            sys.path[:] = self.path


def new_event_loop(current):
    """`current`: it becomes the calling thread's."""
    with StandardLibrary():
        import asyncio

        loop = asyncio.new_event_loop()
        if current:
            asyncio.set_event_loop(loop)
        return asyncio, loop


def take_shadowing():
    """Out of the modules that an import finds: {name: module}. What every interpreter has after its start stays."""
    names = [name for name in sys.modules if name.partition(".")[0] in shadowing and name not in fresh]
    return {name: sys.modules.pop(name) for name in names}


def modules_since(count):
    """Those imported since there were `count`. Older ones are not touched: in a forked child the first
    touch of each copies a page."""
    return list(itertools.islice(reversed(sys.modules.values()), max(0, len(sys.modules) - count)))
