# shellcheck shell=bash
#
# What a build needs on Debian, and how it gets here. Sourced by run.sh, test.sh and .ci/run.
#
# Every function looks first and installs only what is missing, so a second call does nothing, asks
# for no password and needs no network. What is looked for is the thing itself (a command, a header),
# not the package: a machine that has it from elsewhere is left alone.
#
# It changes the system through apt-get (sudo when not root) and the home directory through rustup.
# It never upgrades or removes anything.

# Rust is named in rust-toolchain.toml alone; this is the oldest Node that the web build accepts.
OLDEST_NODE=20

say() { printf '== %s\n' "$*"; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# What compiles the server: a C toolchain for SQLite and ring, cmake and nasm for libjpeg-turbo,
# libavif for AVIF, libde265 for HEIC, GStreamer for films.
need_build_packages() {
    need_packages \
        'git=command -v git' \
        'curl=command -v curl' \
        'ca-certificates=test -e /etc/ssl/certs/ca-certificates.crt' \
        'gcc=command -v gcc' \
        'libc6-dev=test -e /usr/include/stdio.h' \
        'make=command -v make' \
        'cmake=command -v cmake' \
        'nasm=command -v nasm' \
        'pkg-config=command -v pkg-config' \
        'libavif-dev=pkg-config --exists libavif' \
        'libde265-dev=pkg-config --exists libde265' \
        'libgstreamer1.0-dev=pkg-config --exists gstreamer-1.0' \
        'libgstreamer-plugins-base1.0-dev=pkg-config --exists gstreamer-app-1.0'
}

# What films are made with: GStreamer's elements. Without them the box runs and says what it lacks.
need_video_packages() {
    local plugins
    plugins="$(pkg-config --variable=pluginsdir gstreamer-1.0)"
    need_packages \
        "gstreamer1.0-plugins-base=test -e $plugins/libgstplayback.so" \
        "gstreamer1.0-plugins-good=test -e $plugins/libgstisomp4.so" \
        "gstreamer1.0-plugins-bad=test -e $plugins/libgstvideoparsersbad.so" \
        "gstreamer1.0-plugins-ugly=test -e $plugins/libgstx264.so" \
        "gstreamer1.0-libav=test -e $plugins/libgstlibav.so"
}

# What verifies callbacks in the tests: `standardwebhooks` from PyPI and from npm, beside the build.
need_webhook_verifiers() {
    local folder="${CARGO_TARGET_DIR:-$PWD/target}/foreign"
    need_node
    from_pypi "$folder/python" standardwebhooks --no-deps 'standardwebhooks==1.1.0'
    if [ ! -e "$folder/node/node_modules/standardwebhooks" ]; then
        say "installing standardwebhooks from npm into $folder"
        npm install --prefix "$folder/node" --no-audit --no-fund --loglevel=error 'standardwebhooks@1.1.1' </dev/null
    fi
}

# The program that asks every documented call everything its document allows, and some more, beside the build.
need_schemathesis() {
    local folder="${CARGO_TARGET_DIR:-$PWD/target}/foreign"
    [ ! -x "$folder/schemathesis/bin/st" ] || return 0
    need_packages 'python3-venv=/usr/bin/python3 -c "import ensurepip"'
    say "installing schemathesis from PyPI into $folder"
    /usr/bin/python3 -m venv "$folder/schemathesis"
    "$folder/schemathesis/bin/pip" install --quiet --disable-pip-version-check 'schemathesis==4.32.5' </dev/null
}

# An S3 server of other people: moto from PyPI, beside the build.
need_foreign_bucket() {
    from_pypi "${CARGO_TARGET_DIR:-$PWD/target}/foreign/moto" moto 'moto[s3,server]==5.2.5'
}

# What uploads in pieces in the tests: `tuspy` from PyPI with all it needs, beside the build.
need_tus_client() {
    from_pypi "${CARGO_TARGET_DIR:-$PWD/target}/foreign/tuspy" tusclient 'tuspy==1.1.0'
}

# from_pypi FOLDER MODULE WORD… – has pip install what the words say into FOLDER, unless MODULE is there.
from_pypi() {
    local folder=$1 module=$2
    shift 2
    [ ! -e "$folder/$module" ] || return 0
    need_packages 'python3-pip=/usr/bin/python3 -m pip --version'
    say "installing $module from PyPI into $folder"
    /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --target "$folder" "$@" </dev/null
}

# need_packages 'PACKAGE=PROBE'… – installs each package whose probe (a shell command) fails.
need_packages() {
    local pair log missing=()
    for pair in "$@"; do
        sh -c "${pair#*=}" >/dev/null 2>&1 || missing+=("${pair%%=*}")
    done
    [ "${#missing[@]}" -gt 0 ] || return 0

    say "installing Debian packages: ${missing[*]}"
    command -v apt-get >/dev/null || die "no apt-get here; please install: ${missing[*]}"
    log=$(mktemp)
    if ! { as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        die "apt-get could not install: ${missing[*]}"
    fi
    rm -f "$log"

    for pair in "$@"; do
        sh -c "${pair#*=}" >/dev/null 2>&1 || die "${pair%%=*} is installed, but '${pair#*=}' still fails"
    done
}

# The toolchain of rust-toolchain.toml, by rustup unless exactly that compiler is here already.
need_rust() {
    local wanted have
    wanted=$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)
    [ -d "$HOME/.cargo/bin" ] && PATH="$HOME/.cargo/bin:$PATH"
    if ! command -v rustup >/dev/null; then
        have=$(rustc --version 2>/dev/null | cut -d' ' -f2 || true)
        [ "$have" = "$wanted" ] && command -v cargo >/dev/null && return 0
        say "installing rustup into $HOME/.cargo (Rust $wanted; found: ${have:-none})"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            RUSTUP_INIT_SKIP_PATH_CHECK=yes sh -s -- -qy --profile minimal --default-toolchain none --no-modify-path >/dev/null
        PATH="$HOME/.cargo/bin:$PATH"
    fi
    # Fetches compiler, rustfmt and clippy of the pinned release when they are not here yet.
    if ! rustc --version >/dev/null 2>&1; then
        rustup toolchain install "$wanted" --profile minimal --component rustfmt --component clippy
    fi
}

# The web part, when there is one: Node and its locked packages, built into web/dist for the server to embed.
build_web() {
    [ -e web/package.json ] || return 0
    need_node
    (
        cd web || exit 1
        if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
            say 'installing the web packages'
            npm ci --no-audit --no-fund --loglevel=error </dev/null
        fi
        say 'building the web part'
        npm run --silent build </dev/null
    )
}

# Debian's Node; where that is too old (Debian 12 has 18) the npm registry's own build of it, under target/.
need_node() {
    need_packages 'nodejs=command -v node'
    # Some builds of the nodejs package bring npm along and refuse Debian's separate one.
    need_packages 'npm=command -v npm'
    [ "$(node_major)" -ge "$OLDEST_NODE" ] && return 0

    local prefix="$PWD/target/node" arch
    arch=$(node -p process.arch)
    if [ ! -x "$prefix/node_modules/node-linux-$arch/bin/node" ]; then
        say "installing Node 22 into target/node (found: $(node --version))"
        npm install --prefix "$prefix" --no-audit --no-fund --loglevel=error "node-linux-$arch@22" </dev/null
    fi
    PATH="$prefix/node_modules/node-linux-$arch/bin:$PATH"
    [ "$(node_major)" -ge "$OLDEST_NODE" ] || die "Node $OLDEST_NODE or newer is needed, found $(node --version)"
}

node_major() { node -p 'process.versions.node.split(".")[0]'; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "not root and no sudo; please run as root: $*"
    fi
}
