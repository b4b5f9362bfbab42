#!/usr/bin/env bash
# Makes runtime images as OCI image layouts (or `docker save` archives) in build/images/. By default from Debian packages with mmdebstrap,
# which needs neither a container engine nor a registry; with a container engine from the image's Dockerfile.
#
#   runtime-images/build.sh [--with mmdebstrap|docker|podman|buildah] [--out DIR] IMAGE...
# shellcheck disable=SC2154 # the recipes assign suites, packages, image_env and image_cmd
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-1735689600}
readonly IMAGE_PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
work=

die() {
    printf 'runtime-images/build.sh: %s\n' "$*" >&2
    exit 1
}

# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

# Where this machine gets its own Debian packages; nothing when it is no Debian: mmdebstrap then knows a mirror itself.
debian_mirror() {
    local wanted=$1
    # shellcheck disable=SC2016 # $(RELEASE) is apt's
    apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        awk -v wanted="$wanted" '$1 ~ wanted { print $2; exit }'
}

# The sources of a recipe's packages, for mmdebstrap to read from its standard input.
package_sources() {
    local suite mirror security
    mirror=${FAAS_DEBIAN_MIRROR:-$(debian_mirror '^(bookworm|trixie|forky|sid|stable|testing)$')}
    security=$(debian_mirror '^(bookworm|trixie|forky|stable|testing)-security$')
    [ -n "$mirror" ] || return 0
    for suite in "${suites[@]}"; do
        printf 'deb %s %s main\n' "$mirror" "$suite"
    done
    # Fixes of security problems, for the base release.
    [ -z "$security" ] || printf 'deb %s %s-security main\n' "$security" "${suites[0]}"
}

make_rootfs() {
    local root=$1 sources include
    sources=$(package_sources)
    include=$(IFS=, && echo "${packages[*]}")
    mkdir -p "$root"
    # The packages are unpacked without running their scripts (variant extract); what of those matters is in the recipes.
    local options=(--mode=root --variant=extract --include="$include" --skip=cleanup/apt
        --setup-hook="mkdir -p \"\$1\"/usr/bin \"\$1\"/usr/sbin \"\$1\"/usr/lib \"\$1\"/usr/lib64 && cd \"\$1\" && ln -s usr/bin usr/sbin usr/lib usr/lib64 ."
        --dpkgopt=path-exclude=/usr/share/doc/* --dpkgopt=path-exclude=/usr/share/man/* --dpkgopt=path-exclude=/usr/share/locale/*)
    if [ -n "$sources" ]; then
        mmdebstrap "${options[@]}" "${suites[0]}" "$root" - <<<"$sources"
    elif [ ${#suites[@]} -eq 1 ]; then
        mmdebstrap "${options[@]}" "${suites[0]}" "$root"
    else
        die "this image needs packages of several Debian releases, and apt here knows no Debian mirror: name one in FAAS_DEBIAN_MIRROR"
    fi
}

image_config() {
    python3 -c '
import json, sys
split = sys.argv.index("--")
print(json.dumps({"Env": sys.argv[1:split], "Cmd": sys.argv[split + 1:], "User": "1000", "WorkingDir": "/app/function"}))
' "PATH=$IMAGE_PATH" LANG=C.UTF-8 "${image_env[@]}" -- "${image_cmd[@]}"
}

build_from_packages() {
    local name=$1 archive=$2 root
    command -v mmdebstrap >/dev/null || die "mmdebstrap is missing: ./build.sh deps installs it; or use --with docker|podman|buildah"
    [ "$(id -u)" -eq 0 ] || die "making a root file system needs root; or use --with docker|podman|buildah"
    root=$work/$name
    (
        # shellcheck source=/dev/null
        . "$here/$name/recipe.sh"
        make_rootfs "$root"
        write_etc "$root"
        strip_common "$root"
        link_busybox "$root"
        customize "$root"
        set_modes "$root"
        # The times that files will have in the image, before the check: caches may depend on them.
        find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
        check "$root"
        echo "$name: root file system of $(du -sm --apparent-size "$root" | cut -f1) MB"
        python3 "$here/write_oci.py" "$root" "$archive.new" "faas-runtime-$name:latest" "$(image_config)"
    )
    mv "$archive.new" "$archive"
    rm -rf "$root"
}

build_from_dockerfile() {
    local engine=$1 name=$2 archive=$3 tag=faas-runtime-$2:latest
    command -v "$engine" >/dev/null || die "$engine is not installed; without --with, no container engine is needed"
    "$engine" build --tag "$tag" --file "$here/$name/Dockerfile" "$here/$name"
    rm -f "$archive.new"
    case $engine in
        docker) docker save --output "$archive.new" "$tag" ;;
        podman) podman save --format docker-archive --output "$archive.new" "$tag" ;;
        buildah) buildah push "$tag" "docker-archive:$archive.new:$tag" ;;
    esac
    mv "$archive.new" "$archive"
}

main() {
    local engine=mmdebstrap out=$here/../build/images name
    while [ $# -gt 0 ]; do
        case $1 in
            --with) engine=${2:?--with needs mmdebstrap, docker, podman or buildah} && shift 2 ;;
            --out) out=${2:?--out needs a folder} && shift 2 ;;
            -*) die "unknown option \"$1\"" ;;
            *) break ;;
        esac
    done
    [ $# -gt 0 ] || die "which image? There are: python nodejs go native"
    mkdir -p "$out"
    out=$(cd "$out" && pwd)
    work=$(mktemp -d "$out/.work.XXXXXX")
    chmod 755 "$work"
    trap 'rm -rf "$work"' EXIT
    for name in "$@"; do
        [ -f "$here/$name/recipe.sh" ] || die "there is no image \"$name\"; there are: python nodejs go native"
        case $engine in
            mmdebstrap) build_from_packages "$name" "$out/faas-runtime-$name.tar" ;;
            docker | podman | buildah) build_from_dockerfile "$engine" "$name" "$out/faas-runtime-$name.tar" ;;
            *) die "--with takes mmdebstrap, docker, podman or buildah, not \"$engine\"" ;;
        esac
    done
}

main "$@"
