"""The C library, by the light way: importing ctypes costs every start 2 ms."""

PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc


class CLibrary:
    """Found once, while no folder of the function is in sys.path."""

    def __init__(self):
        self.call = None  # an interpreter without it; what is called is a second line of defence, or saves something
        try:
            import _ctypes

            library = _ctypes.dlopen(None, 0)
            self.prctl_address, self.putenv_address = (_ctypes.dlsym(library, name) for name in ("prctl", "putenv"))
            self.call = _ctypes.call_cdeclfunction
        except (ImportError, AttributeError, OSError):
            pass
        try:
            self.mallopt_address = self.call and _ctypes.dlsym(library, "mallopt")
        except OSError:
            self.mallopt_address = None  # not glibc

    def prctl(self, option, value):
        return self.call(self.prctl_address, (option, value, 0, 0, 0)) if self.call else -1

    def keep_freed(self, size):
        """Freed memory up to `size` stays with the process, in place of a return to the system and 1,500 page faults for each
        6 MiB of the next call."""
        if self.mallopt_address:
            self.call(self.mallopt_address, (M_MMAP_THRESHOLD, size))
            self.call(self.mallopt_address, (M_TRIM_THRESHOLD, size))


class Variables:
    """Sets environment variables again and again. os.environ does so with setenv(), and glibc's keeps each value that it was ever
    given; what putenv() is given stays the caller's."""

    def __init__(self, library, environment):
        """`environment`: os.environb"""
        self.library = library
        self.environment = environment
        self.data = getattr(environment, "_data", None) if library.call else None
        self.entries = {}  # the environment of the C library points into them

    def set(self, name, value):
        if self.data is None:
            self.environment[name] = value
            return
        entry = b"%b=%b" % (name, value)
        if self.library.call(self.library.putenv_address, (entry,)) != 0:
            raise MemoryError
        self.data[name] = value
        self.entries[name] = entry
