#!/bin/sh
# Writes what is made from the programs' own tables: docs/configuration.md, and the manual page and shell completion below
# build/share. `./build.sh docs` runs it; a test fails when configuration.md is not what the programs say.
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

mkdir -p build/share
"$bin/faas" man >build/share/faas.1
"$bin/faas" completion >build/share/faas.bash
