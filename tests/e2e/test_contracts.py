"""What the contract promises to functions: every runtime, both contracts."""
import json

from faas_platform import PlatformTest, main

PYTHON_ENVIRONMENT = '''
import json, os, sys
names = ['FUNCTION_NAME', 'FUNCTION_VERSION', 'FUNCTION_MEMORY_MB', 'FUNCTION_TIMEOUT_MS', 'EXECUTION_ID', 'FUNCTION_PAYLOAD', 'MINE']
print(json.dumps({**{name: os.environ.get(name) for name in names}, 'stdin': sys.stdin.read(), 'cwd': os.getcwd(),
                  'file': open(os.environ['FUNCTION_PAYLOAD_FILE']).read()}))
'''


class Process(PlatformTest):
    def test_the_old_platforms_sample_runs_unmodified(self):
        self.deploy('sample', python="import json, os\npayload = json.loads(os.environ.get('FUNCTION_PAYLOAD', '{}'))\n"
                                     "print(json.dumps({'result': 'success'}))\n")
        self.assertSucceeded(self.invoke('sample', {'any': 1}), {'result': 'success'})

    def test_payload_comes_by_environment_stdin_and_file(self):
        self.deploy('environment', python=PYTHON_ENVIRONMENT, env={'MINE': 'yes'}, memory_mb=96, timeout_ms=7000)
        execution = self.invoke('environment', {'text': 'grüße'})
        self.assertSucceeded(execution)
        result = execution['result']
        for key in ('FUNCTION_PAYLOAD', 'stdin', 'file'):
            self.assertEqual(json.loads(result[key]), {'text': 'grüße'})
        self.assertEqual(result['cwd'], '/app/function')
        self.assertEqual((result['FUNCTION_NAME'], result['FUNCTION_MEMORY_MB'], result['FUNCTION_TIMEOUT_MS'], result['MINE']),
                         ('environment', '96', '7000', 'yes'))
        self.assertEqual((result['EXECUTION_ID'], result['FUNCTION_VERSION']), (execution['id'], str(execution['version'])))

    def test_no_payload_is_an_empty_object(self):
        self.deploy('environment', python=PYTHON_ENVIRONMENT)
        self.assertEqual(self.invoke('environment')['result']['stdin'], '{}')

    def test_a_large_payload_is_not_in_the_environment(self):
        self.deploy('environment', python=PYTHON_ENVIRONMENT)
        payload = 'x' * (97 * 1024)
        result = self.invoke('environment', payload)['result']
        self.assertIsNone(result['FUNCTION_PAYLOAD'])
        self.assertEqual((json.loads(result['stdin']), json.loads(result['file'])), (payload, payload))

    def test_the_functions_env_cannot_override_the_platforms(self):
        self.deploy('override', python=PYTHON_ENVIRONMENT)
        answer = self.api('PUT', '/v1/functions/override', {'runtime': 'python', 'code': '', 'env': {'FUNCTION_NAME': 'other'}})
        if answer.status in (200, 201):  # either refused or without effect
            self.assertEqual(self.invoke('override')['result']['FUNCTION_NAME'], 'override')
        else:
            self.assertEqual(answer.status, 400)

    def test_result_is_all_of_stdout_or_its_last_line_or_text(self):
        self.deploy('output', python='import sys\nexec(__import__("json").load(sys.stdin))')
        cases = [
            ('print(\'{"a": [1, 2]}\')', {'a': [1, 2]}, ''),
            ('print(\'{\\n"a":\\n1}\')', {'a': 1}, ''),
            ('print("working"); print("still"); print(\'{"a": 1}\'); print()', {'a': 1}, 'working\nstill\n'),
            ('print("no json")', 'no json', ''),
            ('pass', '', ''),
            ('print("null")', None, ''),
            ('import sys; print("to the log", file=sys.stderr); print(7)', 7, 'to the log\n'),
        ]
        for code, result, logs in cases:
            with self.subTest(code=code):
                execution = self.invoke('output', code)
                self.assertEqual(execution['status'], 'succeeded', execution)
                got = execution['result']
                self.assertEqual(got.rstrip('\n') if isinstance(got, str) else got, result)
                self.assertEqual(execution['logs'], logs)

    def test_bytes_that_are_not_text_come_as_base64(self):
        self.deploy('binary', python='import sys; sys.stdout.buffer.write(bytes([0xff, 0xfe, 0, 1]))')
        execution = self.invoke('binary')
        self.assertSucceeded(execution, '//4AAQ==')
        self.assertTrue(any('base64' in key and value is True for key, value in execution.items()), execution)
        raw = self.api('POST', '/fn/binary', {})
        self.assertEqual(raw.body, bytes([0xff, 0xfe, 0, 1]))

    def test_exit_status_signal_and_log_of_a_failure_are_told(self):
        self.deploy('failing', python='import os, sys\nprint("why", file=sys.stderr)\nsys.exit(3)')
        execution = self.invoke('failing')
        self.assertFailed(execution, 'Function.ExitStatus')
        self.assertEqual((execution['error']['exit_code'], execution['logs']), (3, 'why\n'))
        self.deploy('crashing', python='import os\nos.kill(os.getpid(), 11)')
        execution = self.invoke('crashing')
        self.assertFailed(execution, 'Function.Signal')
        self.assertEqual(execution['error']['signal'], 'SIGSEGV')

    def test_a_python_exception_ends_with_status_1_and_its_traceback_in_the_log(self):
        self.deploy('raising', python='def f():\n    return 1 / 0\nf()')
        execution = self.invoke('raising')
        self.assertEqual(execution['status'], 'failed')
        self.assertIn('ZeroDivisionError', execution['logs'])
        self.assertIn('main.py", line 2, in f', execution['logs'])

    def test_each_invocation_is_a_fresh_process(self):
        self.deploy('fresh', python='import os, json\nold = os.environ.get("SEEN")\nos.environ["SEEN"] = "1"\n'
                                    'import builtins\nn = getattr(builtins, "n", 0); builtins.n = n + 1\nprint(json.dumps([old, n]))')
        for _ in range(3):
            self.assertSucceeded(self.invoke('fresh'), [None, 0])

    def test_what_it_leaves_running_is_killed(self):
        self.deploy('leaving', native='#!/bin/sh\n(trap "" HUP TERM; sleep 300) >/dev/null 2>&1 &\n'
                                      'echo "$(grep -l ^sleep.300 /proc/[0-9]*/cmdline 2>/dev/null | wc -l)"\n')
        first, second = self.invoke('leaving'), self.invoke('leaving')
        self.assertSucceeded(first)
        self.assertSucceeded(second)
        self.assertLessEqual(second['result'], 1)
        self.assertLess(first['metrics']['duration'], 5e9)

    def test_python_modules_beside_main_can_be_imported(self):
        self.deploy('modules', runtime='python', files={'main.py': 'import helper.deep, json\nprint(json.dumps(helper.deep.VALUE))',
                                                        'helper/__init__.py': '', 'helper/deep.py': 'VALUE = {"deep": True}'})
        self.assertSucceeded(self.invoke('modules'), {'deep': True})

    def test_main_is_main(self):
        self.deploy('is-main', python='import sys, json\nif __name__ == "__main__":\n    print(json.dumps([sys.argv[0].endswith("main.py"), '
                                      '__file__.endswith("main.py")]))')
        self.assertSucceeded(self.invoke('is-main'), [True, True])

    def test_nodejs(self):
        self.deploy('node', nodejs='const p = JSON.parse(process.env.FUNCTION_PAYLOAD);\nconsole.error("log");\n'
                                   'setTimeout(() => console.log(JSON.stringify({ sum: p.a + p.b, cwd: process.cwd() })), 10);')
        execution = self.invoke('node', {'a': 1, 'b': 2})
        self.assertSucceeded(execution, {'sum': 3, 'cwd': '/app/function'})
        self.assertEqual(execution['logs'], 'log\n')

    def test_nodejs_is_forked_in_a_container(self):
        """One parent for all, and it is not faas-init: the image's interpreter works with the addon."""
        self.deploy('node-fork', nodejs='const threads = require("fs").readdirSync("/proc/self/task").length;\n'
                                        'console.log(JSON.stringify({ parent: process.ppid, helpers: threads > 4, random: Math.random() }));')
        results = [self.invoke('node-fork')['result'] for _ in range(3)]
        self.assertEqual({(result['parent'] != 1, result['helpers']) for result in results}, {(True, True)})
        self.assertEqual(len({result['parent'] for result in results}), 1)
        self.assertEqual(len({result['random'] for result in results}), 3)

    def test_nodejs_leaves_nothing_and_finds_nothing(self):
        self.deploy('node-left', nodejs='const { spawn } = require("child_process");\nconst fs = require("fs");\n'
                                        'const found = [global.left, fs.readdirSync("/proc").filter((n) => /^\\d+$/.test(n)).length];\n'
                                        'global.left = 1;\n'
                                        'spawn("sh", ["-c", "trap \\"\\" TERM; sleep 1000"], { detached: true, stdio: "ignore" }).unref();\n'
                                        'console.log(JSON.stringify(found));')
        results = [self.invoke('node-left')['result'] for _ in range(3)]
        self.assertEqual(results, [[None, 3]] * 3)

    def test_nodejs_module(self):
        self.deploy('node-mjs', runtime='nodejs', files={'index.mjs': 'import { value } from "./other.mjs";\nconsole.log(JSON.stringify({ value }));',
                                                         'other.mjs': 'export const value = await Promise.resolve(5);'})
        self.assertSucceeded(self.invoke('node-mjs'), {'value': 5})

    def test_nodejs_failure(self):
        self.deploy('node-throw', nodejs='throw new TypeError("not like this")')
        execution = self.invoke('node-throw')
        self.assertEqual(execution['status'], 'failed')
        self.assertIn('TypeError: not like this', execution['logs'], execution)

    def test_go(self):
        function = self.deploy('go', go='package main\nimport ("encoding/json"; "fmt"; "os")\nfunc main() {\n\tvar p map[string]int\n'
                                        '\tjson.Unmarshal([]byte(os.Getenv("FUNCTION_PAYLOAD")), &p)\n\tfmt.Printf("{\\"twice\\": %d}", p["n"]*2)\n}\n')
        self.assertEqual(function['state'], 'ready', function)
        self.assertSucceeded(self.invoke('go', {'n': 21}), {'twice': 42})

    def test_go_with_vendored_module(self):
        function = self.deploy('go-vendor', runtime='go', files={
            'go.mod': 'module function\n\ngo 1.22\n\nrequire example.org/greet v1.0.0\n',
            'main.go': 'package main\nimport ("fmt"; "example.org/greet")\nfunc main() { fmt.Printf("%q", greet.Word) }\n',
            'vendor/modules.txt': '# example.org/greet v1.0.0\n## explicit\nexample.org/greet\n',
            'vendor/example.org/greet/greet.go': 'package greet\nconst Word = "hello"\n'})
        self.assertEqual(function['state'], 'ready', function)
        self.assertSucceeded(self.invoke('go-vendor'), 'hello')

    def test_go_that_does_not_compile_tells_the_compilers_words(self):
        function = self.deploy('go-broken', go='package main\nfunc main() { undefinedThing() }\n')
        self.assertEqual(function['state'], 'failed')
        self.assertIn('undefined: undefinedThing', json.dumps(function))
        self.assertApiError(self.api('POST', '/v1/functions/go-broken/invocations', {}), 409, 'not_ready')

    def test_a_go_update_that_fails_leaves_the_version_before_serving(self):
        self.deploy('go-update', go='package main\nimport "fmt"\nfunc main() { fmt.Print(1) }\n')
        self.deploy('go-update', go='package main\nfunc main() { broken }\n')
        self.assertSucceeded(self.invoke('go-update'), 1)

    def test_native_shell(self):
        self.deploy('shell', native='#!/bin/sh\necho log >&2\nprintf \'{"got": %s}\' "$FUNCTION_PAYLOAD"\n')
        self.assertSucceeded(self.invoke('shell', {'a': None}), {'got': {'a': None}})

    def test_native_without_entry_or_not_executable(self):
        for name, code in (('no-entry', {'files': {'other': 'x'}}), ('bad-program', {'files': {'bootstrap': b'\x7fELF but not really'}})):
            answer = self.platform.api('PUT', '/v1/functions/' + name, self.request_body('native', **code))
            if answer.status == 400:
                self.assertIn('bootstrap', answer.json()['error']['message'])
                continue
            self.assertFailed(self.invoke(name), 'Function.NotStarted')

    def request_body(self, runtime, files):
        import base64
        from faas_platform import archive
        return {'runtime': runtime, 'code': base64.b64encode(archive(files)).decode()}


class Handler(PlatformTest):
    def test_python(self):
        self.deploy('handler', runtime='python', contract='handler', handler='main.handler', memory_mb=96, code='''
import os, sys
loads = os.getpid()
calls = 0
def handler(event, context):
    global calls
    calls += 1
    print("out"); print("err", file=sys.stderr)
    return {"event": event, "calls": calls, "name": context.function_name, "version": str(context.function_version),
            "memory": int(context.memory_limit_mb), "id": context.execution_id, "aws": context.aws_request_id,
            "left": context.get_remaining_time_in_millis(), "env": os.environ.get("EXECUTION_ID")}
''')
        for call in (1, 2, 3):
            execution = self.invoke('handler', {'n': call})
            self.assertSucceeded(execution)
            result = execution['result']
            self.assertEqual((result['event'], result['calls'], result['name'], result['memory']), ({'n': call}, call, 'handler', 96))
            self.assertEqual((result['id'], result['aws'], result['version']), (execution['id'], execution['id'], str(execution['version'])))
            self.assertTrue(0 < result['left'] <= 30000)
            self.assertEqual(sorted(execution['logs'].split()), ['err', 'out'])
            self.assertEqual(execution['cold_start'], call == 1)

    def test_python_exception_has_type_message_and_stack(self):
        self.deploy('raises', runtime='python', contract='handler', handler='main.handler',
                    code='class Special(Exception):\n    pass\ndef deep():\n    raise Special("the message")\n'
                         'def handler(event, context):\n    if event.get("ok"):\n        return "fine"\n    deep()\n')
        execution = self.invoke('raises')
        self.assertFailed(execution, 'Special')
        self.assertEqual(execution['error']['message'], 'the message')
        self.assertIn('deep', ' '.join(execution['error']['stack']))
        self.assertSucceeded(self.invoke('raises', {'ok': True}), 'fine')

    def test_python_coroutine_is_awaited(self):
        self.deploy('coroutine', runtime='python', contract='handler', handler='main.go',
                    code='import asyncio\nasync def go(event, context):\n    await asyncio.sleep(0.01)\n    return [event, "awaited"]')
        for _ in range(2):
            self.assertSucceeded(self.invoke('coroutine', 1), [1, 'awaited'])

    def test_python_result_that_is_not_json_is_the_functions_error(self):
        self.deploy('set-result', runtime='python', contract='handler', handler='main.handler', code='def handler(e, c):\n    return {1, 2} if e else 1')
        execution = self.invoke('set-result', {'x': 1})
        self.assertEqual(execution['status'], 'failed', execution)
        self.assertSucceeded(self.invoke('set-result'), 1)

    def test_python_exit_is_a_failure_and_the_next_call_works(self):
        self.deploy('exits', runtime='python', contract='handler', handler='main.handler',
                    code='import os\ndef handler(e, c):\n    if e == "hard":\n        os._exit(4)\n    if e == "soft":\n        raise SystemExit(5)\n    return 1')
        for how in ('hard', 'soft'):
            self.assertEqual(self.invoke('exits', how)['status'], 'failed')
            self.assertSucceeded(self.invoke('exits'), 1)

    def test_nodejs(self):
        self.deploy('node-handler', runtime='nodejs', contract='handler', handler='index.handler', code='''
let calls = 0;
exports.handler = async (event, context) => {
  calls += 1;
  console.log("out");
  await new Promise((resolve) => setTimeout(resolve, 5));
  return { event, calls, name: context.function_name, id: context.execution_id, aws: context.aws_request_id,
           memory: Number(context.memory_limit_mb), left: context.get_remaining_time_in_millis() };
};''')
        for call in (1, 2):
            execution = self.invoke('node-handler', [call])
            self.assertSucceeded(execution)
            result = execution['result']
            self.assertEqual((result['event'], result['calls'], result['name'], result['memory']), ([call], call, 'node-handler', 128))
            self.assertEqual((result['id'], result['aws'], execution['logs']), (execution['id'], execution['id'], 'out\n'))

    def test_nodejs_plain_return_and_module(self):
        self.deploy('node-plain', runtime='nodejs', contract='handler', handler='index.run', code='exports.run = (event) => event.a * 2;')
        self.assertSucceeded(self.invoke('node-plain', {'a': 4}), 8)
        self.deploy('node-esm', runtime='nodejs', contract='handler', handler='index.handler',
                    files={'index.mjs': 'export async function handler(event) { return { esm: event }; }'})
        self.assertSucceeded(self.invoke('node-esm', 1), {'esm': 1})

    def test_nodejs_rejection_has_type_message_and_stack(self):
        self.deploy('node-rejects', runtime='nodejs', contract='handler', handler='index.handler',
                    code='class Special extends Error { constructor(m) { super(m); this.name = "Special"; } }\n'
                         'exports.handler = async () => { throw new Special("the message"); };')
        execution = self.invoke('node-rejects')
        self.assertFailed(execution, 'Special')
        self.assertEqual(execution['error']['message'], 'the message')
        self.assertIn('index.js', ' '.join(execution['error']['stack']))

    def test_a_module_that_does_not_load_says_why(self):
        cases = {'syntax-error': ('python', 'main.handler', 'def handler(:\n', 'SyntaxError'),
                 'import-error': ('python', 'main.handler', 'import nothing_like_this\n', 'nothing_like_this'),
                 'no-handler': ('python', 'main.other', 'def handler(e, c):\n    pass\n', 'other'),
                 'node-syntax': ('nodejs', 'index.handler', 'exports.handler = (;', 'SyntaxError'),
                 'node-no-handler': ('nodejs', 'index.other', 'exports.handler = () => 1;', 'other')}
        for name, (runtime, handler, code, word) in cases.items():
            with self.subTest(name):
                self.deploy(name, runtime=runtime, contract='handler', handler=handler, code=code)
                execution = self.invoke(name)
                self.assertEqual(execution['status'], 'failed', execution)
                self.assertIn(word, json.dumps(execution['error']) + execution['logs'])


if __name__ == '__main__':
    main()
