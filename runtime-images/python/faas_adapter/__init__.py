"""The parts of adapter.py. Each imports what it needs when it is itself imported, because the function may have
modules of the same names: adapter.py takes them all out of sys.modules before any of the function's code is found."""
