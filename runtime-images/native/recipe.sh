# The least that ordinary programs need: the C and C++ libraries for dynamically linked ones, a static shell with the usual small
# tools for scripts, CA certificates.
# shellcheck shell=bash disable=SC2034 # the variables are build.sh's
suites=(bookworm)
packages=(libc6 libgcc-s1 libstdc++6 ca-certificates busybox-static)
image_env=(SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt)
image_cmd=(sh)

customize() {
    # OpenSSL came with the tool that installs certificates; programs that use it link what they were built with.
    rm -rf "$1"/usr/lib/*-linux-gnu/{libssl.so*,libcrypto.so*,ossl-modules} "$1"/usr/lib/ssl "$1"/etc/ssl/openssl.cnf
}

check() {
    # shellcheck disable=SC2016 # the inner shell's
    as_function "$1" sh -ec '
        test "$(id -u)" = 1000 && test "$(id -un)" = function
        test "$(echo "{\"a\": 1}" | sed "s/[^0-9]//g")" = 1
        busybox | head -n 1'
    check_program "$1" 'int main(void) { return puts("a C program runs") < 0; }' '#include <stdio.h>'
}

# A dynamically linked program, if there is a compiler at hand.
check_program() {
    local root=$1 body=$2 header=$3
    command -v cc >/dev/null || return 0
    printf '%s\n%s\n' "$header" "$body" | cc -x c - -o "$root/check-program"
    as_function "$root" /check-program
    rm "$root/check-program"
}
