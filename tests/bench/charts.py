"""Two charts as SVG, from the rows of bench.json: how much of each target is used, and ours beside the baselines on one scale of time. No
library, no font of our own; one file for a light background and one for a dark one."""
import math
from xml.sax.saxutils import escape

from figures import duration, limit, ratio, show, show_bound

THEMES = {
    'light': {'page': '#ffffff', 'text': '#1f2328', 'dim': '#59636e', 'grid': '#d8dee4', 'good': '#1a7f37', 'fair': '#2f6fd0', 'bad': '#cf222e',
              'ours': '#1a7f37', 'other': '#8c6bd1', 'must': '#bc4c00'},
    'dark': {'page': '#0d1117', 'text': '#e6edf3', 'dim': '#9198a1', 'grid': '#30363d', 'good': '#3fb950', 'fair': '#539bf5', 'bad': '#f85149',
             'ours': '#3fb950', 'other': '#b392f0', 'must': '#f0883e'},
}
WIDTH = 920
ROW = 34
TOP = 70
BOTTOM = 34
FONT = "font-family=\"-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif\""


class Drawing:
    """SVG elements on a page of one theme."""

    def __init__(self, theme, height, title):
        self.colour = THEMES[theme]
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
                      f'role="img" {FONT}>', f'<title>{escape(title)}</title>',
                      f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{self.colour["page"]}"/>']
        self.text(20, 30, title, size=17, weight=600)

    def text(self, x, y, text, colour='text', size=13, anchor='start', weight=400):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" fill="{self.colour[colour]}" font-size="{size}" font-weight="{weight}" '
                          f'text-anchor="{anchor}">{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, colour, width=1.0, dash=''):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{self.colour[colour]}" '
                          f'stroke-width="{width}"' + (f' stroke-dasharray="{dash}"' if dash else '') + '/>')

    def bar(self, x, y, width, height, colour):
        self.parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 2):.1f}" height="{height}" rx="2" fill="{self.colour[colour]}"/>')

    def dot(self, x, y, colour, radius=5.5):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{self.colour[colour]}"/>')

    def ring(self, x, y, colour):
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{self.colour["page"]}" stroke="{self.colour[colour]}" '
                          'stroke-width="2"/>')

    def end(self):
        return '\n'.join(self.parts + ['</svg>', ''])


# ---- how much of each target is used ----

def used(value, bound):
    """1 is the target itself, less is better."""
    return limit(bound) / value if 'at_least' in bound else value / limit(bound)


def targets(rows, theme):
    """A bar for each row: how much of what the target allows it takes."""
    left, right, most = 180, 640, 1.6
    height = TOP + ROW * len(rows) + BOTTOM
    drawing = Drawing(theme, height, 'How much of each target is used')
    drawing.text(20, 50, 'Shorter is better. The full width up to "must" is what the target allows; the mark is the aim.', 'dim', 12)
    scale = (right - left) / most
    for share in (0, 0.5, 1, 1.5):
        x = left + share * scale
        drawing.line(x, TOP - 4, x, height - BOTTOM, 'must' if share == 1 else 'grid', 1.5 if share == 1 else 1, '' if share != 1 else '5 3')
        drawing.text(x, height - BOTTOM + 18, 'must' if share == 1 else f'{share:.0%}', 'must' if share == 1 else 'dim', 12, 'middle')
    for number, row in enumerate(rows):
        draw_target(drawing, row, TOP + ROW * number, left, scale, most)
    return drawing.end()


def draw_target(drawing, row, y, left, scale, most):
    share = used(row['ratio'], row['must'])
    aim = used(limit(row['aim']), row['must'])
    colour = 'bad' if share > 1 else 'good' if share <= aim else 'fair'
    drawing.text(left - 12, y + 20, row['id'], anchor='end')
    drawing.bar(left, y + 8, min(share, most) * scale, 16, colour)
    if share > most:
        drawing.text(left + most * scale + 4, y + 21, '›', colour, 16, weight=700)
    drawing.line(left + aim * scale, y + 4, left + aim * scale, y + 28, 'text', 2)
    text = f'{ratio(row["ratio"], row["must"])}  ({show_bound(row["must"])}, aim {show_bound(row["aim"])[2:]})'
    drawing.text(left + most * scale + 18, y + 20, text, 'text' if share <= 1 else 'bad', 12.5)


# ---- times, on one logarithmic scale ----

SHORT = (('`docker run`', 'docker run'), ('Docker\'s API', 'Docker\'s API'), ('`runc run`', 'runc run'), ('same bytes', 'bare HTTP copy'),
         ('hello', 'bare HTTP hello'), ('bare start', 'bare interpreter'), ('bare fork', 'bare fork'))
LABELS = {'warm-handler': 'warm handler call, Python', 'warm-process-go': 'warm process call, Go', 'warm-process-python': 'warm process call, Python',
          'warm-process-node': 'warm process call, Node.js', 'cold-pool': 'cold call from the pool', 'cold-miss': 'cold call, pool empty',
          'burst-50': 'burst of 50 calls, the last', 'payload-6mib': '6 MiB in, 6 MiB out'}


def short(name):
    for start, text in SHORT:
        if start in name:
            return text
    return name


def others(row):
    """What is drawn beside ours: baselines that our figure is held against."""
    found = [row['baseline']] + [entry['baseline'] for entry in row['further'] if 'ours' not in entry]
    return [(short(baseline['name']), baseline['median']) for baseline in found if 'no core reserved' not in baseline['name']]


def times(rows, theme):
    """For each row about a time: our median, and rings for what it is held against."""
    rows = [row for row in rows if row['id'] in LABELS and row['ours']['unit'] == 'ns']
    step, left, right = 46, 210, WIDTH - 50
    height = TOP + step * len(rows) + BOTTOM
    drawing = Drawing(theme, height, 'Ours, and what the same costs by other means')
    drawing.text(20, 50, 'Medians, logarithmic scale. Left is better.', 'dim', 12)
    values = [value for row in rows for value in [row['ours']['median']] + [other for _, other in others(row)]]
    low, high = math.floor(math.log10(min(values)) - 0.1), math.ceil(math.log10(max(values)) + 0.05)

    def place(value):
        return left + (math.log10(value) - low) / (high - low) * (right - left)
    for power in range(low, high + 1):
        x = place(10 ** power)
        drawing.line(x, TOP - 4, x, height - BOTTOM, 'grid')
        drawing.text(x, height - BOTTOM + 18, duration(10 ** power).replace('.00', '').replace('.0', ''), 'dim', 12, 'middle')
    for number, row in enumerate(rows):
        draw_times(drawing, row, TOP + step * number + 14, left, place)
    return drawing.end()


def draw_times(drawing, row, y, left, place):
    mine = place(row['ours']['median'])
    beside = others(row)
    drawing.text(left - 16, y + 10, LABELS[row['id']], anchor='end')
    ends = [mine] + [place(value) for _, value in beside]
    drawing.line(min(ends), y + 6, max(ends), y + 6, 'grid', 3)
    labels = [(mine, show(row['ours']['median'], 'ns'), 'ours', 600)]
    for name, value in beside:
        drawing.ring(place(value), y + 6, 'other')
        labels.append((place(value), name, 'dim', 400))
    drawing.dot(mine, y + 6, 'ours')
    write_labels(drawing, sorted(labels), y)


def write_labels(drawing, labels, y):
    """Above the line, or below it where the one before is in the way, or shifted where both are."""
    free = {-6: 0.0, 25: 0.0}
    for x, text, colour, weight in labels:
        half = len(text) * 3.2
        level = min(free, key=lambda level: (max(free[level] - (x - half), 0), level))
        x = max(x, free[level] + half)
        drawing.text(x, y + level, text, colour, 11.5, 'middle', weight)
        free[level] = x + half + 8


CHARTS = {'targets': targets, 'times': times}
