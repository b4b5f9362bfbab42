/* The function folders that `faas new` makes. Each deploys and runs as it is. */
#include "cli/templates.h"

#define SETTINGS(runtime, contract, handler)                                                       \
    "{\n  \"runtime\": \"" runtime "\",\n  \"contract\": \"" contract "\",\n" handler              \
    "  \"memory_mb\": 128,\n  \"timeout_ms\": 10000\n}\n"

const struct function_template function_templates[] = {
    {.runtime = "python",
     .contract = "process",
     .settings = SETTINGS("python", "process", ""),
     .files = {{"main.py",
                "import json\nimport os\nimport sys\n\n"
                "payload = json.loads(os.environ.get('FUNCTION_PAYLOAD', '{}'))\n"
                "name = payload.get('name', 'world')\n\n"
                "print(f'greeting {name}', file=sys.stderr)  # the log\n"
                "print(json.dumps({'greeting': f'Hello, {name}!'}))  # the result\n",
                0644}}},
    {.runtime = "python",
     .contract = "handler",
     .settings = SETTINGS("python", "handler", "  \"handler\": \"main.handler\",\n"),
     .files =
         {{"main.py",
           "calls = 0  # kept between calls of one instance\n\n\n"
           "def handler(event, context):\n"
           "    global calls\n    calls += 1\n"
           "    print(f'call {calls}, {context.get_remaining_time_in_millis()} ms left')  # the "
           "log\n"
           "    return {'greeting': f\"Hello, {event.get('name', 'world')}!\", 'calls': calls}\n",
           0644}}},
    {.runtime = "nodejs",
     .contract = "process",
     .settings = SETTINGS("nodejs", "process", ""),
     .files = {{"index.js",
                "const payload = JSON.parse(process.env.FUNCTION_PAYLOAD || '{}');\n"
                "const name = payload.name || 'world';\n\n"
                "console.error(`greeting ${name}`); // the log\n"
                "console.log(JSON.stringify({ greeting: `Hello, ${name}!` })); // the result\n",
                0644}}},
    {.runtime = "nodejs",
     .contract = "handler",
     .settings = SETTINGS("nodejs", "handler", "  \"handler\": \"index.handler\",\n"),
     .files = {{"index.js",
                "let calls = 0; // kept between calls of one instance\n\n"
                "exports.handler = async (event, context) => {\n"
                "  calls += 1;\n"
                "  console.log(`call ${calls}, ${context.get_remaining_time_in_millis()} ms "
                "left`); // the log\n"
                "  return { greeting: `Hello, ${event.name || 'world'}!`, calls };\n};\n",
                0644}}},
    {.runtime = "go",
     .contract = "process",
     .settings = SETTINGS("go", "process", ""),
     .files =
         {{"main.go",
           "package main\n\nimport (\n\t\"encoding/json\"\n\t\"fmt\"\n\t\"os\"\n)\n\n"
           "func main() {\n\tpayload := struct {\n\t\tName string `json:\"name\"`\n\t}{Name: "
           "\"world\"}\n"
           "\tif err := json.NewDecoder(os.Stdin).Decode(&payload); err != nil {\n"
           "\t\tfmt.Fprintln(os.Stderr, \"the payload is no JSON:\", err)\n\t\tos.Exit(1)\n\t}\n"
           "\tfmt.Fprintln(os.Stderr, \"greeting\", payload.Name) // the log\n"
           "\tjson.NewEncoder(os.Stdout).Encode(map[string]string{\"greeting\": \"Hello, \" + "
           "payload.Name + \"!\"})\n}\n",
           0644},
          {"go.mod", "module function\n\ngo 1.22\n", 0644}}},
    {.runtime = "native",
     .contract = "process",
     .settings = SETTINGS("native", "process", ""),
     .files = {{"bootstrap",
                "#!/bin/sh\n# Any executable named bootstrap will do: a shell script, or a "
                "compiled program.\n"
                "echo \"greeting from a shell\" >&2 # the log\n"
                "printf '{\"greeting\": \"Hello!\", \"payload\": %s}\\n' \"$FUNCTION_PAYLOAD\" # "
                "the result\n",
                0755}}},
};
const size_t function_template_count = sizeof(function_templates) / sizeof(function_templates[0]);
