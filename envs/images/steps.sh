#!/bin/sh
# The steps that the definition files and envs/Dockerfile share: steps.sh system|workflow|engine|profilers ARGUMENTS...
# They run as root inside the image that is being built; /opt/memgap-source holds this project's src and envs.
set -eu
SOURCE=/opt/memgap-source
export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Packages that were fetched outside are bound here (`--wheels`); then nothing else is asked. Hashes are checked all the same.
if ls /mnt/*.whl > /dev/null 2>&1; then
  export PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt
fi

install_packages() {
  # a dated archive has expired on purpose
  apt-get -qq -o Acquire::Check-Valid-Until=false update
  apt-get -qq install --no-install-recommends "$@"
  rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
}

# system DEBIAN_URL SECURITY_URL RELEASE: Python, and the compilers that engines call at run time
system() {
  rm -f /etc/apt/sources.list.d/debian.sources
  printf 'deb %s %s main\ndeb %s %s-security main\n' "$1" "$3" "$2" "$3" > /etc/apt/sources.list
  install_packages bash ca-certificates procps python3 python3-venv
}

# workflow: memgap with the workflow's locked packages in /opt/memgap
workflow() {
  python3 -m venv /opt/memgap
  /opt/memgap/bin/python -m pip install --quiet --require-hashes -r "$SOURCE/envs/workflow.txt"
  /opt/memgap/bin/python -m pip install --quiet --no-deps --no-build-isolation "$SOURCE"
  rm -rf "$SOURCE/build"
}

# engine cpu|cuda: vLLM from its lock in /opt/memgap-engine
engine() {
  install_packages g++ gcc libc6-dev libnuma1 python3-dev
  /opt/memgap/bin/python -m memgap.install.engine --folder /opt/memgap-engine --locks "$SOURCE/envs" --kind "$1"
}

# profilers REPOSITORY KEYRING SHA256 PACKAGE=VERSION...: nsys and ncu from NVIDIA's repository
profilers() {
  repository=$1 keyring=$2 sha256=$3
  shift 3
  /opt/memgap/bin/python -c 'import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])' \
    "$repository/$keyring" /tmp/keyring.deb
  echo "$sha256  /tmp/keyring.deb" | sha256sum --check --quiet
  dpkg --install /tmp/keyring.deb
  rm /tmp/keyring.deb
  install_packages "$@"
  for program in nsys ncu; do
    command -v "$program" > /dev/null ||
      ln -s "$(find /opt/nvidia /usr/local -name "$program" -type f -perm -u+x | sort | tail -n 1)" "/usr/local/bin/$program"
  done
}

step=$1
shift
"$step" "$@"
