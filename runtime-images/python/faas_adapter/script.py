"""A script, run as `python3 main.py` runs it, in a process that was not started for it; and the end of that process."""

import _signal
import atexit
import gc
import os
import sys
from _frozen_importlib_external import SourceFileLoader  # the interpreter's own; importlib would cost

from faas_adapter.frames import PAYLOAD_ENV_MAX
from faas_adapter.modules import OWN_FOLDER, modules_since


def take_payload(execution_id):
    fd = os.open(os.environ["FUNCTION_PAYLOAD_FILE"], os.O_RDONLY)
    os.dup2(fd, 0)
    os.close(fd)
    os.environ["EXECUTION_ID"] = execution_id
    size = os.fstat(0).st_size
    if size <= PAYLOAD_ENV_MAX:
        payload = os.pread(0, size, 0)
        if b"\0" not in payload:
            os.environb[b"FUNCTION_PAYLOAD"] = payload


def read_script(script):
    with open(os.path.join(os.getcwd(), script), "rb") as file:
        return file.read()


def compile_script(script, source):
    return compile(source, os.path.join(os.getcwd(), script), "exec", dont_inherit=True)


def fresh_main(script):
    path = os.path.join(os.getcwd(), script)
    module = type(sys)("__main__")
    module.__loader__ = SourceFileLoader("__main__", path)
    module.__file__ = path
    module.__cached__ = None
    module.__annotations__ = {}
    module.__builtins__ = sys.modules["builtins"]
    sys.modules["__main__"] = module
    sys.argv = [script]
    sys.orig_argv = [sys.orig_argv[0], script] if hasattr(sys, "orig_argv") else None
    return module


def show_exception(error):
    """As the interpreter does, without the frames of this file."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(OWN_FOLDER):
        trace = trace.tb_next
    error = error.with_traceback(trace)
    try:
        sys.excepthook(type(error), error, trace)
    except Exception as second:
        print("Error in sys.excepthook:", file=sys.stderr)
        second.__context__ = None
        own_trace = second.__traceback__.tb_next
        sys.__excepthook__(type(second), second.with_traceback(own_trace), own_trace)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)


def exit_status(error):
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def run_script(script, module, code):
    """Never returns."""
    known = len(sys.modules)
    status = 0
    try:
        exec(code or compile_script(script, read_script(script)), module.__dict__)
    except SystemExit as error:
        status = exit_status(error)
    except BaseException as error:
        show_exception(error)
        status = -_signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    end_process(module, status, known)


# ---- the end of a script's process ----


def end_process(module, status, known):
    """What an interpreter does at its end, except for freeing its memory piece by piece: that would
    copy the pages shared with the zygote, and take longer than most functions."""
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    if status >= 0 and has_foreign_code(known):
        sys.exit(status)
    status = flush_streams(status)
    clear_modules(module, known)
    status = flush_streams(status)
    if status < 0:
        _signal.signal(-status, _signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def has_foreign_code(known):
    """Extension modules that did not come with Python may count on a complete end."""
    if "ctypes" in sys.modules:
        return True
    for module in modules_since(known):
        file = getattr(module, "__file__", None) or ""
        if file.endswith(".so") and "/lib-dynload/" not in file:
            return True
    return False


def flush_streams(status):
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception as error:
            if stream is sys.stdout and status != 120:
                print(f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}", file=sys.stderr)
            status = 120 if status == 0 else status  # the interpreter's own choice
    return status


def clear_modules(main, known):
    """Lets go of the function's objects: open files are written, finalisers run."""
    folder = os.path.join(os.path.dirname(main.__file__), "")
    modules = [main]
    for module in modules_since(known):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            modules.append(module)
    for module in modules:
        names = module.__dict__
        for name in list(names):
            if name != "__builtins__":
                names[name] = None
    gc.collect(2 if gc.get_objects(2) else 1)  # a collection of all three generations empties the free lists too
