"""Counts words. The module is loaded once per instance, so what it computes here is there for every call."""
import collections
import re

WORD = re.compile(r"[\w']+")
calls = 0


def handler(event, context):
    global calls
    calls += 1
    words = WORD.findall(event.get('text', '').lower())
    print(f'{context.function_name} {context.function_version}: call {calls} of this instance, {len(words)} words')  # the log
    return {'words': len(words), 'most_common': collections.Counter(words).most_common(3), 'calls': calls}
