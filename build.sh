#!/usr/bin/env bash
# The one command of this project: installs what it needs, builds, tests, shows. `./build.sh help` lists the verbs.
# Everything it makes is below build/; a second run does only what changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly TOP=$PWD
readonly OUT=$TOP/build
readonly LOGS=$OUT/log
readonly STAMPS=$OUT/stamps
readonly IMAGES=(python nodejs go native)

readonly PACKAGES_BUILD=(
    gcc libc6-dev make cmake ninja-build pkg-config musl-tools
    libyajl-dev libcurl4-openssl-dev libarchive-dev libmicrohttpd-dev libgnutls28-dev libuv1-dev libsqlite3-dev libpq-dev)
readonly PACKAGES_RUN=(runc mount containernetworking-plugins iptables nftables iproute2 ca-certificates)
readonly PACKAGES_IMAGES=(mmdebstrap debian-archive-keyring mount util-linux python3)
readonly PACKAGES_TEST=(libcriterion-dev openssl python3 python3-jsonschema python3-yaml skopeo umoci zstd sqlite3 crun strace postgresql busybox-static)
readonly PACKAGES_VM=(qemu-system-x86 e2fsprogs cpio mmdebstrap debian-archive-keyring python3)
readonly PACKAGES_FUZZ=(clang libclang-rt-dev)
readonly PACKAGES_LINT=(clang clang-format clang-tidy shellcheck cppcheck git)
readonly PACKAGES_COVERAGE=(gcovr)

usage() {
    cat <<'END'
Usage: ./build.sh VERB [ARGUMENT...]

  demo                       everything set up, then examples deployed, invoked and shown
  test [asan] [-R REGEX]     everything set up, then every test; with asan: under the sanitizers
  test-vm [TEST...]          container tests in a virtual machine with cgroup v2 only and AppArmor (QEMU, no KVM needed)
  chaos [MINUTES] [--seed N] [--database postgresql]   load and injected faults, then what was promised is checked
  deps                       install what building, running and testing need (apt; elsewhere: say what is needed)
  build                      the programs, into build/bin/
  images [NAME...]           the runtime images (python nodejs go native), into build/images/ and the image store
  hostile [--with-vm] [GROUP...]   functions that attack, bystanders, and the table of what came of it; then the same in the virtual machine
  bench [--quick] [ROW...]   the benchmarks, with an optimised build; see docs/performance.md
  bench profile [--write]    where the time of a pooled cold start goes
  bench acceptance|backlog|failover    asynchronous calls: accepted, drained, gone on elsewhere after a death; each has --help
  lint [CHECK...]            checks without running: format shell clang cppcheck tidy
  fuzz [TARGET] [SECONDS]    fuzz one parser or all of them, 60 seconds each
  coverage                   line coverage of src/ and oci/ by the tests
  docs                       what pages take from the programs: configuration, system calls, attacks
  install [--prefix DIR]     an optimised build, installed below DIR (/usr/local); DESTDIR is honoured
  package                    a Debian package with systemd units, into build/package/
  clean                      remove build/

Not as root, it asks sudo where root is needed: installing packages, making images, running containers.
END
}

# ---- telling what happens ----

die() {
    printf 'build.sh: %s\n' "$*" >&2
    exit 1
}

# step TEXT COMMAND...: runs COMMAND with its output in a log, and prints one line with the seconds it took.
step() {
    local text=$1 start=$SECONDS status=0 ticker=
    shift
    mkdir -p "$LOGS"
    local log
    log=$LOGS/$(tr -cs 'A-Za-z0-9' '-' <<<"$text" | sed 's/-*$//').log
    if [ -t 1 ]; then
        (while sleep 1; do printf '\r%6d s  %s …' "$((SECONDS - start))" "$text"; done) &
        ticker=$!
    else
        printf '           %s …\n' "$text"
    fi
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ -n "$ticker" ]; then
        kill "$ticker" 2>/dev/null || true
        wait "$ticker" 2>/dev/null || true
        printf '\r'
    fi
    if [ "$status" -ne 0 ]; then
        printf '    failed  %s\n' "$text"
        tail -n 40 "$log" | sed 's/^/    | /'
        die "\"$text\" failed with status $status; all of its output is in $log"
    fi
    printf '%6d s  %s\n' "$((SECONDS - start))" "$text"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "this needs root, and there is no sudo: run it as root: $*"
    fi
}

# ---- dependencies ----

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s\n' "$package"
    done | sort -u
}

# Ubuntu has clang's runtime under versioned names only; any installed one will do.
available_packages() {
    local package
    for package in "$@"; do
        if [ "$package" = libclang-rt-dev ] && ! apt-cache show "$package" >/dev/null 2>&1; then
            apt-cache depends clang | sed -n 's/.*Depends: clang-\([0-9]*\)$/libclang-rt-\1-dev/p'
        else
            printf '%s\n' "$package"
        fi
    done
}

# Debian's package postgresql makes a database cluster and starts it, unless told otherwise before; tests start their own.
no_postgresql_cluster() {
    local settings=/etc/postgresql-common/createcluster.conf
    [ -e "$settings" ] || [[ " $* " != *" postgresql "* ]] ||
        as_root sh -c "mkdir -p ${settings%/*} && echo 'create_main_cluster = false' >$settings"
}

apt_install() {
    no_postgresql_cluster "$@"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

need_packages() {
    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        need_programs
        return
    fi
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    step "package lists" as_root apt-get update -q
    mapfile -t missing < <(available_packages "${missing[@]}")
    mapfile -t missing < <(missing_packages "${missing[@]}")
    [ ${#missing[@]} -gt 0 ] || return 0
    step "installing ${#missing[@]} packages" apt_install "${missing[@]}"
}

# A system without apt: look for the things themselves, and say all that is missing at once.
need_programs() {
    local program library missing=()
    for program in cc cmake ninja pkg-config runc mmdebstrap python3 nft iptables ip; do
        command -v "$program" >/dev/null || missing+=("program $program")
    done
    for library in yajl libcurl libarchive libmicrohttpd gnutls libuv sqlite3 libpq criterion; do
        pkg-config --exists "$library" 2>/dev/null || missing+=("library $library, with its headers")
    done
    cni_plugins_exist || missing+=("the CNI plugin bridge, in /usr/lib/cni or /opt/cni/bin")
    [ ${#missing[@]} -gt 0 ] || return 0
    {
        echo "build.sh: packages can be installed by this script on Debian and Ubuntu only. Please install:"
        printf '  %s\n' "${missing[@]}"
        echo "Debian calls them: ${PACKAGES_BUILD[*]} ${PACKAGES_RUN[*]} ${PACKAGES_IMAGES[*]} ${PACKAGES_TEST[*]}"
    } >&2
    exit 1
}

cni_plugins_exist() {
    local folder
    for folder in /usr/lib/cni /opt/cni/bin /usr/libexec/cni; do
        [ -x "$folder/bridge" ] && return 0
    done
    return 1
}

verb_deps() {
    need_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}" "${PACKAGES_TEST[@]}"
    echo "dependencies: all there"
}

# promtool is part of Debian's package prometheus, whose installation would start a server; so only this one file is taken.
fetch_promtool() {
    local tools=$OUT/tools
    [ ! -x "$tools/promtool" ] && ! command -v promtool >/dev/null || return 0
    command -v apt-get >/dev/null || return 0
    mkdir -p "$tools/download"
    step "promtool, for the tests of /metrics" download_promtool "$tools"
}

download_promtool() {
    local tools=$1
    (
        cd "$tools/download"
        apt-get -o APT::Sandbox::User=root download prometheus || {
            as_root apt-get update -q
            apt-get -o APT::Sandbox::User=root download prometheus
        }
        dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool
        mv usr/bin/promtool "$tools/promtool"
    )
    rm -rf "$tools/download"
}

# ---- building ----

# build_preset PRESET [TARGET...]: configures once, and leaves the rest to ninja, which does what changed.
build_preset() {
    local preset=$1 folder=$OUT
    shift
    [ "$preset" = dev ] || folder=$OUT/$preset
    if [ ! -f "$folder/build.ninja" ]; then
        step "configuring ($preset)" cmake --preset "$preset" -G Ninja
    fi
    step "building ($preset)" ninja -C "$folder" "$@"
}

verb_build() {
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev
    build_preset dev
}

verb_docs() {
    verb_build
    docs/generate.sh
    python3 -B tests/hostile/run.py --markdown docs/security.md
    FAAS_WRITE_DOCS=1 "$OUT/bin/test_seccomp" --filter 'seccomp_page/*' >/dev/null
    echo "docs/configuration.md, docs/seccomp.md and the table in docs/security.md are what the programs and the suite say"
}

verb_clean() {
    # Image builds leave files of root when sudo made them.
    rm -rf "$OUT" 2>/dev/null || as_root rm -rf "$OUT"
}

# ---- images ----

# What an image is made from. Adapters are not part of it: they come from the host's libexec folder.
image_inputs_hash() {
    find runtime-images -type f ! -name 'adapter.*' \( -path "runtime-images/$1/*" -o -path 'runtime-images/*' ! -path 'runtime-images/*/*' \) \
        -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -d' ' -f1
}

build_image() {
    local name=$1 archive=$OUT/images/faas-runtime-$1.tar stamp=$STAMPS/image-$1 hash
    hash=$(image_inputs_hash "$name")
    [ ! -f "$archive" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ] || return 0
    mkdir -p "$STAMPS" "$OUT/images"
    step "image faas-runtime-$name" as_root runtime-images/build.sh "$name"
    printf '%s\n' "$hash" >"$stamp"
}

# The command that imports images: of the usual build, or of the optimised one where only that was made.
faas_program() {
    local program=$OUT/bin/faas
    [ -x "$program" ] || [ ! -x "$OUT/release/bin/faas" ] || program=$OUT/release/bin/faas
    printf '%s\n' "$program"
}

# Into the store that workers read (WORKER_IMAGE_DIR, else the default), unless this very archive is there already.
import_image() {
    local name=faas-runtime-$1:latest archive=$OUT/images/faas-runtime-$1.tar
    local store=${WORKER_IMAGE_DIR:-/var/lib/faas/images} stamp now
    stamp=$STAMPS/imported-$1-$(sha256sum <<<"$store" | cut -c1-8)
    now="$(stat -c '%s %Y' "$archive")"
    if [ "$(cat "$stamp" 2>/dev/null)" = "$now" ] && image_is_in_store "$name"; then
        return 0
    fi
    step "importing $name" as_root env WORKER_IMAGE_DIR="$store" "$(faas_program)" image import "$name" "$archive"
    printf '%s\n' "$now" >"$stamp"
}

image_is_in_store() {
    as_root env WORKER_IMAGE_DIR="${WORKER_IMAGE_DIR:-/var/lib/faas/images}" "$(faas_program)" image list --json 2>/dev/null |
        grep -qF "\"$1\""
}

verb_images() {
    if [ $# -gt 0 ]; then
        make_images "$@"
    else
        make_images "${IMAGES[@]}"
    fi
}

make_images() {
    local name
    need_packages "${PACKAGES_IMAGES[@]}"
    for name in "$@"; do
        [ -d "runtime-images/$name" ] || die "there is no image \"$name\"; there are: ${IMAGES[*]}"
        build_image "$name"
    done
    [ -x "$(faas_program)" ] || verb_build
    for name in "$@"; do
        import_image "$name"
    done
}

# ---- tests ----

# The last line is for machines and people alike: "N passed, N failed", from CTest's own results.
print_summary() {
    python3 - "$1" <<'END'
import re, sys, xml.etree.ElementTree as tree
passed = failed = skipped = cases = 0
broken = []
for case in tree.parse(sys.argv[1]).getroot().iter('testcase'):
    status = case.get('status')
    output = case.findtext('system-out') or ''
    cases += sum(int(n) for n in re.findall(r'Tested: (?:\x1b\[[0-9;]*m)*(\d+)', output))
    cases += sum(int(n) for n in re.findall(r'^Ran (\d+) tests? in', output, re.M))
    if status == 'run' and case.find('failure') is None:
        passed += 1
    elif status in ('notrun', 'disabled') and case.find('failure') is None:
        skipped += 1
    else:
        failed += 1
        broken.append(case.get('name'))
for name in broken:
    print('failed:', name)
print(f'{cases} test cases in {passed + failed + skipped} test programs')
print(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
sys.exit(1 if failed or not passed else 0)
END
}

run_ctest() {
    local folder=$1 status=0
    shift
    rm -f "$folder/results.xml"
    # Side by side where a test allows it (the others: RUN_SERIAL). Most wait for something half of the time.
    as_root ctest --test-dir "$folder" --parallel "$((2 * $(nproc)))" --output-on-failure --output-junit "$folder/results.xml" \
        --test-output-size-passed 100000 --test-output-size-failed 1000000 "$@" </dev/null || status=$?
    [ -f "$folder/results.xml" ] || die "ctest wrote no results (status $status)"
    print_summary "$folder/results.xml"
}

verb_test() {
    local preset=dev folder=$OUT
    if [ "${1:-}" = asan ]; then
        preset=asan folder=$OUT/asan
        shift
    fi
    need_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}" "${PACKAGES_TEST[@]}"
    fetch_promtool
    build_preset dev
    make_images "${IMAGES[@]}"
    [ "$preset" = dev ] || build_preset "$preset"
    run_ctest "$folder" "$@"
}

# The machine's root is made anew when its recipe changes; its disk, with this tree's programs, at each run.
verb_test_vm() {
    local hash stamp=$STAMPS/vm
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev "${PACKAGES_IMAGES[@]}" "${PACKAGES_VM[@]}"
    build_preset dev
    make_images "${IMAGES[@]}"
    if [ $# -eq 0 ] || [[ " $* " == *" package "* ]]; then
        verb_package
    fi
    hash=$(sha256sum tests/vm/build.sh tests/vm/*init tests/vm/run-tests tests/vm/*.service | sha256sum)
    if [ "$(cat "$stamp" 2>/dev/null)" != "$hash" ]; then
        step "a Debian for the virtual machine" as_root tests/vm/build.sh "$OUT/vm"
        mkdir -p "$STAMPS"
        printf '%s\n' "$hash" >"$stamp"
    fi
    as_root tests/vm/run "$@"
}

# The last line is "N passed, N failed"; the seed that it shows repeats the same faults.
verb_chaos() {
    need_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}" "${PACKAGES_TEST[@]}"
    build_preset dev
    make_images "${IMAGES[@]}"
    as_root python3 tests/chaos/run "$@"
}

verb_coverage() {
    need_packages "${PACKAGES_BUILD[@]}" "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}" "${PACKAGES_TEST[@]}" "${PACKAGES_COVERAGE[@]}"
    fetch_promtool
    build_preset dev
    make_images "${IMAGES[@]}"
    build_preset coverage
    find "$OUT/coverage" -name '*.gcda' -delete
    run_ctest "$OUT/coverage" "$@" || echo "some tests failed; the coverage of what ran follows"
    gcovr --root "$TOP" --filter 'src/' --filter 'oci/' --object-directory "$OUT/coverage" \
        --exclude-throw-branches --gcov-ignore-parse-errors --print-summary \
        --html-details "$OUT/coverage/report.html" --txt "$OUT/coverage/report.txt"
    echo "by file: build/coverage/report.txt and report.html"
}

verb_fuzz() {
    local target=all seconds=60 jobs=1 targets
    if [ $# -gt 0 ] && [[ ! $1 =~ ^(--jobs|[0-9]+)$ ]]; then
        target=$1
        shift
    fi
    if [ $# -gt 0 ] && [ "$1" != --jobs ]; then
        seconds=$1
        shift
    fi
    if [ "${1:-}" = --jobs ]; then
        jobs=${2:-}
        shift $(($# < 2 ? $# : 2))
    fi
    [ $# -eq 0 ] || die "fuzz: unknown argument \"$1\"; it takes [TARGET|all] [SECONDS] [--jobs N]"
    [[ $seconds =~ ^[1-9][0-9]*$ ]] || die "fuzz: seconds must be a number from 1, not \"$seconds\""
    [[ $jobs =~ ^[1-9][0-9]*$ ]] || die "fuzz: --jobs must be a number from 1, not \"$jobs\""
    mapfile -t targets < <(find tests/fuzz -name 'fuzz_*.c' -printf '%f\n' | sed 's/^fuzz_//; s/\.c$//' | sort)
    if [ "$target" != all ]; then
        [[ " ${targets[*]} " == *" $target "* ]] || die "fuzz: there is no target \"$target\"; there are: ${targets[*]}"
        targets=("$target")
    fi
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev "${PACKAGES_FUZZ[@]}"
    build_preset fuzz "${targets[@]/#/fuzz_}"
    echo "fuzzing ${#targets[@]} targets for $seconds s each, $jobs at a time"
    python3 -B tests/fuzz/run.py --dir "$OUT/fuzz" --logs "$LOGS" --seconds "$seconds" --jobs "$jobs" "${targets[@]}"
}

verb_hostile() {
    local with_vm="" groups
    if [ "${1:-}" = --help ]; then
        python3 -B tests/hostile/run.py --help
        return
    fi
    if [ "${1:-}" = --with-vm ]; then
        with_vm=1
        shift
    fi
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}"
    build_preset dev
    make_images "${IMAGES[@]}"
    mkdir -p "$LOGS"
    as_root env FAAS_BIN="$OUT/bin" FAAS_HOSTILE_BIN="$OUT/hostile" PYTHONUNBUFFERED=1 python3 -B tests/hostile/run.py "$@" |
        tee "$LOGS/hostile.log"
    [ -n "$with_vm" ] || return 0
    groups=("$@")
    [ $# -gt 0 ] || groups=(limits kernel instance secrets network archives)
    verb_test_vm --measure "${groups[@]/#/hostile/}" | tee "$LOGS/hostile-vm.log"
}

verb_bench() {
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}"
    build_preset release faas faas-controller faas-worker faas-init bench-load bench-hello bench-spawn
    make_images "${IMAGES[@]}"
    local program=run
    case ${1:-} in
        profile) program=profile && need_packages strace ;;
        acceptance | backlog | failover) program=$1.py && need_packages postgresql ;;
    esac
    [ "$program" = run ] || shift
    as_root env FAAS_BIN="$OUT/release/bin" "tests/bench/$program" "$@"
}

# ---- lint ----

c_files() { find src oci runtime-images tests -name '*.[ch]' | sort; }
shell_files() { { find . -path ./build -prune -o -name '*.sh' -print; echo .ci/run; } | sort; }

lint_format() { c_files | xargs clang-format --dry-run -Werror; }
lint_shell() { shell_files | xargs shellcheck; }

# Left out is what cppcheck gets wrong: it does not know cleanup attributes (memleak: LeakSanitizer sees to that) nor the
# loops of sys/queue.h and outputs (uninitvar: compilers and analyzer see to that), it minds the flag by which a callback
# learns that its object is gone (autoVariables: reset before it leaves scope), and cannot parse all of C (internalAstError).
lint_cppcheck() {
    # It reads no system headers, but for the macros that declare lists.
    local queue
    queue=$(echo '#include <sys/queue.h>' | cc -E -x c - | sed -n 's/^# 1 "\(.*queue\.h\)".*/\1/p')
    cppcheck --quiet --error-exitcode=1 --enable=warning,portability --inline-suppr --std=c11 \
        --suppress=missingIncludeSystem --suppress=unknownMacro "--include=$queue" \
        --suppress=memleak --suppress=uninitvar --suppress=autoVariables --suppress=internalAstError \
        -I src -I . -j "$(nproc)" src oci runtime-images
}

# One file, unless the text that the compiler sees of it is what it was when it was last found clean.
tidy_one() {
    local file=$1 stamp key
    stamp=$STAMPS/tidy/${file//\//_}
    key=$( (clang -E -std=gnu17 -D_GNU_SOURCE -Isrc -I. "$file" 2>/dev/null; cat .clang-tidy) | sha256sum)
    [ "$(cat "$stamp" 2>/dev/null)" != "$key" ] || return 0
    # faas-init and the addon are compiled by rules of their own and so are not in the compile commands.
    if [[ $file == src/init/* || $file == runtime-images/* ]]; then
        clang-tidy --quiet "$file" -- -std=gnu17 -D_GNU_SOURCE -Isrc -I.
    else
        clang-tidy --quiet -p "$OUT/clang" "$file"
    fi && printf '%s\n' "$key" >"$stamp"
}

lint_tidy() {
    mkdir -p "$STAMPS/tidy"
    [ -f "$OUT/clang/compile_commands.json" ] || lint_clang
    export -f tidy_one
    export STAMPS OUT
    # shellcheck disable=SC2016 # $1 is the inner shell's
    find src oci runtime-images -name '*.c' -print0 | xargs -0 -n 1 -P "$(nproc)" bash -c 'tidy_one "$1"' tidy
}

lint_clang() {
    [ -f "$OUT/clang/build.ninja" ] || cmake -S . -B "$OUT/clang" -G Ninja -DCMAKE_C_COMPILER=clang \
        -DCMAKE_BUILD_TYPE=RelWithDebInfo -DFAAS_WERROR=ON -DFAAS_ASSERTS=ON
    ninja -C "$OUT/clang"
}

verb_lint() {
    local check checks=("$@")
    [ $# -gt 0 ] || checks=(format shell clang cppcheck tidy)
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev "${PACKAGES_LINT[@]}"
    for check in "${checks[@]}"; do
        case $check in
            format | shell | clang | cppcheck | tidy) step "lint: $check" "lint_$check" ;;
            *) die "lint: there is no check \"$check\"; there are: format shell clang cppcheck tidy" ;;
        esac
    done
}

# ---- the rest ----

verb_demo() {
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev "${PACKAGES_RUN[@]}" "${PACKAGES_IMAGES[@]}"
    build_preset dev
    make_images "${IMAGES[@]}"
    as_root examples/demo.py "$@"
}

verb_install() {
    local prefix=/usr/local
    if [ "${1:-}" = --prefix ]; then
        prefix=${2:?--prefix needs a folder}
    elif [ $# -gt 0 ]; then
        die "install: unknown argument \"$1\"; it takes --prefix DIR"
    fi
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev
    build_preset release
    local command=(cmake --install "$OUT/release" --prefix "$prefix" --strip)
    if mkdir -p "${DESTDIR:-}$prefix" 2>/dev/null && [ -w "${DESTDIR:-}$prefix" ]; then
        step "installing below ${DESTDIR:-}$prefix" "${command[@]}"
    else
        step "installing below ${DESTDIR:-}$prefix" as_root env DESTDIR="${DESTDIR:-}" "${command[@]}"
    fi
}

# A Debian package in build/package/, made from the release build.
verb_package() {
    need_packages "${PACKAGES_BUILD[@]}" libcriterion-dev dpkg-dev
    build_preset release
    mkdir -p "$OUT/package"
    step "package" cpack --config "$OUT/release/CPackConfig.cmake" -B "$OUT/package"
    find "$OUT/package" -maxdepth 1 -name '*.deb' -printf 'build/package/%f\n'
}

main() {
    local verb=${1:-help}
    shift || true
    case $verb in
        test-vm) verb_test_vm "$@" ;;
        chaos) verb_chaos "$@" ;;
        demo | test | deps | build | images | hostile | bench | lint | fuzz | docs | install | package | clean | coverage) "verb_$verb" "$@" ;;
        help | --help | -h) usage ;;
        *)
            usage >&2
            die "unknown verb \"$verb\""
            ;;
    esac
}

main "$@"
