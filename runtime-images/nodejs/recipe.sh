# Node.js 20.
# shellcheck shell=bash disable=SC2034 # the variables are build.sh's
suites=(trixie)
packages=(nodejs ca-certificates busybox)
image_env=(NODE_ENV=production SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt)
image_cmd=(node)

customize() {
    local root=$1
    # Package managers and declarations for editors.
    rm -rf "$root"/usr/share/nodejs/{corepack,@types,npm} "$root"/usr/lib/node_modules/npm "$root"/usr/bin/{js,corepack,npm,npx}
    [ -e "$root/usr/bin/node" ] || ln -s nodejs "$root/usr/bin/node"
}

check() {
    as_function "$1" node -e '
const assert = require("assert");
for (const name of ["http", "https", "crypto", "zlib", "worker_threads", "stream", "child_process", "vm"]) require(name);
assert.strictEqual(process.versions.node.split(".")[0], "20");
assert.strictEqual(require("crypto").createHash("sha256").update("").digest("hex").slice(0, 8), "e3b0c442");
assert.strictEqual(require("zlib").gunzipSync(require("zlib").gzipSync("text")).toString(), "text");
assert.strictEqual(new Intl.DateTimeFormat("de", { month: "long", timeZone: "UTC" }).format(0), "Januar");
assert.strictEqual(require("child_process").execSync("echo shell works").toString(), "shell works\n");
assert(require("tls").rootCertificates.length > 50, "no CA certificates");
assert.strictEqual(process.getuid(), 1000);
assert.strictEqual(typeof fetch, "function");
import("node:fs/promises").then(() => console.log("Node.js", process.versions.node));'
}
