# Go 1.22: the compiler, and the standard library both as source and compiled, so that a small program compiles in a moment and without
# network. The programs run in the same image.
# shellcheck shell=bash disable=SC2034 # the variables are build.sh's
suites=(bookworm bookworm-backports)
packages=(golang-1.22-go ca-certificates tzdata busybox)
image_env=(GOROOT=/usr/lib/go-1.22 GOPATH=/tmp/go SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt)
image_cmd=(go version)

customize() {
    local root=$1 go=$1/usr/lib/go-1.22 share=$1/usr/share/go-1.22 tool
    ln -sfn ../lib/go-1.22/bin/go "$root/usr/bin/go"
    ln -sfn ../lib/go-1.22/bin/gofmt "$root/usr/bin/gofmt"
    # What compiling needs stays: no tests, no tools for people, no C.
    rm -rf "$share"/{api,misc,test} "$go"/{api,misc,test} "$share"/src/{cmd,runtime/race,internal/trace/traceviewer}
    find "$share/src" -name testdata -prune -exec rm -rf {} +
    find "$share/src" \( -name '*_test.go' -o -name '*.syso' \) -delete
    find "$go/pkg/tool" -type f ! -name asm ! -name compile ! -name link -delete
    # Settings in the installation itself hold in whatever environment the compiler is called. The cache is read-only in a container;
    # Go takes what it finds there, and does without storing.
    cat >>"$go/go.env" <<'END'
GOCACHE=/usr/lib/go-cache
GOFLAGS=-buildvcs=false
CGO_ENABLED=0
GOPROXY=off
GOSUMDB=off
GOTOOLCHAIN=local
END
    sed -i -e '/^GOPROXY=h/d' -e '/^GOSUMDB=s/d' "$go/go.env"
    # The cache knows the library's files by their times, so these have to be the final ones now.
    find "$share" "$go" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
    in_root "$root" /usr/bin/env HOME=/tmp go install std
}

# Compiles as a worker would: another user, nothing writable but /tmp; and without the cache it would take ten seconds.
check() {
    local program='package main
import ("encoding/json"; "net/http"; "os")
func main() { json.NewEncoder(os.Stdout).Encode(map[string]any{"runs": true, "status": http.StatusOK}) }'
    # shellcheck disable=SC2016 # the inner shell's
    as_function "$1" sh -ec '
        mkdir /tmp/function && cd /tmp/function && printf "%s\n" "$1" >main.go && printf "module function\n\ngo 1.22\n" >go.mod
        go version
        start=$(date +%s)
        timeout 20 go build -o /tmp/program .
        echo "compiled in $(($(date +%s) - start)) s"
        test "$(/tmp/program)" = "{\"runs\":true,\"status\":200}"
        test ! -e /tmp/.cache' sh "$program"
}
