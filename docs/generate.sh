#!/bin/sh
# Writes docs/configuration.md from the programs' own tables. `./build.sh docs` runs it; a test fails when the page is not what the
# programs say. (Manual page and completion are made by every build, in build/share.)
set -eu
cd "$(dirname "$0")/.."
bin=${FAAS_BIN:-build/bin}
out=${1:-docs/configuration.md}

{
    cat <<'END'
# Configuration

Every setting is an environment variable and a flag of its program; a flag beats the environment, which beats the default.
`--check-config` prints what holds, with secrets hidden, and exits. `faas up` passes its environment on to both programs. This page is
made from the programs' own tables by `./build.sh docs`.

END
    "$bin/faas-controller" --markdown
    echo
    "$bin/faas-worker" --markdown
    cat <<'END'

## faas

| variable | flag | default | what it does |
|---|---|---|---|
| `FAAS_URL` | `--url` | what a `faas up` on this machine listens on, else `http://127.0.0.1:8080` | The controller's address. |
| `FAAS_TOKEN` | `--token` | the token file of that `faas up`, else `/var/lib/faas/token` | The access token. |
| `WORKER_IMAGE_DIR` | `--image-dir` | `/var/lib/faas/images` | The image store, for `faas image` and `faas bundle`. |
END
} >"$out"
