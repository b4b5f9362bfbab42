"""The rows of the benchmark: what each one means, what it is held against, and the targets for its ratio (ours / baseline)."""


class Target:
    def __init__(self, text, baseline, must, aim, at_least=False):
        self.text, self.baseline, self.must, self.aim, self.at_least = text, baseline, must, aim, at_least

    def bound(self, limit):
        return None if limit is None else {'at_least' if self.at_least else 'at_most': limit}

    def met(self, ratio, limit):
        if limit is None:
            return None
        return ratio >= limit if self.at_least else ratio <= limit


RUNC = '`runc run` of the same bundle'
HELLO = 'bare libmicrohttpd hello'

# Where one number is in the name of a further baseline, FURTHER has its targets.
ROWS = {
    'warm-handler': Target('warm `handler` call, Python, 1 client, over the HTTP API', HELLO, 4.0, 2.5),
    'handler-throughput': Target('`handler` calls a second, Python, 32 clients', HELLO + ', answers a second', 0.08, 0.15, at_least=True),
    'warm-process-python': Target('warm `process` call, Python', RUNC, 1 / 20, 1 / 40),
    'warm-process-node': Target('warm `process` call, Node.js', 'bare start of the same `node`', 0.5, 0.2),
    'warm-process-go': Target('warm `process` call, Go', RUNC, 1 / 15, 1 / 30),
    'cold-pool': Target('cold call of a new function from the pool, Python `process`', RUNC, 1 / 6, 1 / 15),
    'cold-miss': Target('cold call past an empty pool, Python `process`', RUNC, 1.2, 1.0),
    'refill': Target('instances started a second when refilling the pool', 'parallel `runc create` and `start` of the same bundle', 0.8, 1.0,
                     at_least=True),
    'burst-50': Target('50 concurrent calls to one idle Python function, last answer', '50 parallel ' + RUNC, 1 / 5, 1 / 15),
    'payload-6mib': Target('6 MiB payload and result through a Python `handler`', 'the same bytes through bare hello', 3.0, 1.5),
    'idle-memory': Target('memory of an idle Python instance, kernel memory included', 'the budget of 9 MB', 1.0, 5 / 9),
    'idle-500': Target('warm call with 500 idle instances on the worker', 'the same with 10', 1.3, 1.05),
    'functions-100k': Target('warm call with 100,000 functions registered', 'the same with 10', 1.2, 1.0),
    'memory-flat': Target('memory of controller and worker after 100,000 calls', 'the same after 1,000', 1.1, 1.0),
}

DOCKER = '`docker run` of the same image and limits'
FURTHER = {('cold-pool', DOCKER): Target('', DOCKER, 1 / 40, 1 / 100)}


def further(row, baseline):
    return FURTHER.get((row, baseline), Target('', baseline, None, None))
