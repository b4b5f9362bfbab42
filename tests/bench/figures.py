"""How figures are written, for the table on the terminal, the pages and the charts."""
import re


def show(value, unit):
    if unit == 'ns':
        return duration(value)
    if unit == '1/s':
        return f'{value:,.0f}/s' if value >= 100 else f'{value:.3g}/s'
    return f'{value:,.3g} {unit}' if value < 1000 else f'{value:,.0f} {unit}'


def duration(ns):
    for limit, divisor, unit in ((1e3, 1, 'ns'), (1e6, 1e3, 'µs'), (1e9, 1e6, 'ms'), (float('inf'), 1e9, 's')):
        if ns < limit:
            value = ns / divisor
            return f'{value:.0f} {unit}' if value >= 100 else f'{value:.1f} {unit}' if value >= 10 else f'{value:.2f} {unit}'
    return None


def ratio(value, bound=None):
    """1/21 where the target is a fraction of the baseline, 3.1 x where it is about as much or more."""
    if bound and limit(bound) <= 0.5 and 'at_most' in bound and value < 1:
        return f'1/{1 / value:.0f}' if value <= 0.1 else f'1/{1 / value:.1f}'
    return f'{value:.2f} x' if value < 10 else f'{value:.0f} x'


def limit(bound):
    value, = bound.values()
    return value


def show_bound(bound):
    value = limit(bound)
    text = ratio(value, bound) if value <= 0.5 and 'at_most' in bound else f'{value:.3g} x'
    return ('≥ ' if 'at_least' in bound else '≤ ') + text.removesuffix('.0')


def show_met(met):
    if met is None:
        return 'not judged'
    return 'aim met' if met['aim'] else 'must met' if met['must'] else 'not met'


def between_markers(text, lines, program):
    """A page's text with `lines` where tests/bench/<program> writes them."""
    start, end = f'<!-- written by tests/bench/{program} -->', '<!-- end of what it writes -->'
    pattern = re.compile(re.escape(start) + '.*?' + re.escape(end), re.S)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f'{program}: not exactly one place between "{start}" and "{end}"')
    return pattern.sub(lambda _: '\n'.join([start, '', *lines, '', end]), text)
