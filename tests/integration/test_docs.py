"""The documentation says what is: the generated page is what the programs say, links lead somewhere, every `faas` command in it has verbs and
options that exist, and every file it names is there."""
import os
import re
import sys
import shutil
import subprocess
import tempfile
import unittest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get('FAAS_BIN', os.path.join(TOP, 'build', 'bin'))


def pages():
    for folder, _, files in os.walk(os.path.join(TOP, 'docs')):
        for name in sorted(files):
            if name.endswith('.md'):
                yield os.path.join(folder, name)
    yield os.path.join(TOP, 'README.md')


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def faas_help(*verb):
    return subprocess.run([os.path.join(BIN, 'faas'), *verb, '--help'], capture_output=True, text=True, check=True).stdout


def code_lines(text):
    """Lines of indented and fenced code blocks, with the shell's continuation lines joined."""
    fenced = False
    for line in text.replace('\\\n', ' ').split('\n'):
        if line.startswith('```'):
            fenced = not fenced
        elif fenced or line.startswith('    '):
            yield line.strip()


class Docs(unittest.TestCase):
    def test_the_configuration_page_is_what_the_programs_say(self):
        with tempfile.TemporaryDirectory() as folder:
            made = os.path.join(folder, 'configuration.md')
            subprocess.run([os.path.join(TOP, 'docs', 'generate.sh'), made], check=True, env=dict(os.environ, FAAS_BIN=BIN))
            self.assertEqual(read(made), read(os.path.join(TOP, 'docs', 'configuration.md')), 'run ./build.sh docs')

    def test_the_table_of_attacks_is_what_the_suite_has(self):
        page = os.path.join(TOP, 'docs', 'security.md')
        with tempfile.TemporaryDirectory() as folder:
            made = shutil.copy(page, folder)
            subprocess.run([sys.executable, '-B', os.path.join(TOP, 'tests', 'hostile', 'run.py'), '--markdown', made], check=True)
            self.assertEqual(read(made), read(page), 'run ./build.sh docs')

    def test_links_between_pages_lead_somewhere(self):
        for page in pages():
            for target in re.findall(r'\]\(([^)#]+)[^)]*\)', read(page)):
                if '://' not in target:
                    path = os.path.normpath(os.path.join(os.path.dirname(page), target))
                    self.assertTrue(os.path.exists(path), f'{os.path.relpath(page, TOP)}: {target} is not there')

    def test_named_source_files_are_there(self):
        for page in pages():
            for name in re.findall(r'`((?:src|oci|tests|docs|examples|runtime-images)/[A-Za-z0-9_./-]+\.[a-z]+)`', read(page)):
                self.assertTrue(os.path.exists(os.path.join(TOP, name)), f'{os.path.relpath(page, TOP)}: {name} is not there')

    def test_commands_have_verbs_and_options_that_exist(self):
        known = {}
        checked = 0
        for page in pages():
            for line in code_lines(read(page)):
                for command in re.findall(r'(?:^|[|;&(] *|bin/)faas ([a-z][^|;&#)]*)', line):
                    words = command.split()
                    verb = tuple(words[:2]) if words[0] in ('image', 'dlq', 'tokens', 'callback') else (words[0],)
                    if verb[0] in ('image', 'dlq', 'tokens', 'callback') and len(verb) < 2:
                        continue
                    where = f'{os.path.relpath(page, TOP)}: faas {command}'
                    if verb not in known:
                        try:
                            known[verb] = faas_help(*verb)
                        except subprocess.CalledProcessError as error:
                            raise AssertionError(f'{where}: there is no such verb') from error
                    for option in re.findall(r'(?<=\s)--[a-z-]+', ' ' + command):
                        self.assertIn(option + ' ', known[verb] + ' ', where)
                    checked += 1
        self.assertGreater(checked, 30)


if __name__ == '__main__':
    unittest.main(verbosity=2)
