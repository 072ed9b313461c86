#!/bin/sh
# Installs what the interop and browser tests need: npm packages, and Chromium, nginx and Caddy where apt-get is at hand.
# Whatever cannot be had is said here, and its tests are reported as skipped.
cd "$(dirname "$0")/.." || exit 1

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Node (about 100 MB to download, a minute or two) ..."
    apt-get update -qq && apt-get install -y -qq nodejs npm >/dev/null
  fi
fi
if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  echo "NOTE: Node is missing: the tests with real Yjs clients and the browser tests will be SKIPPED."
  echo "      Install Node 20 or newer and run make test again."
  exit 0
fi
if [ "$(node -p 'process.versions.node.split(".")[0]')" -lt 20 ]; then
  echo "NOTE: Node $(node --version) is too old (20 or newer is needed): tests that need it will be SKIPPED."
  exit 0
fi
install() {
  if npm --prefix "$1" ci --silent --no-audit --no-fund; then
    touch "$1/node_modules/.package-lock.json"
  else
    echo "NOTE: npm could not install the packages of $1: tests that need them will be SKIPPED."
  fi
}
for folder in tests/interop/js tests/gateways/js tests/streams/js tests/mcp/js examples/web examples/gateways examples/editors; do
  if [ ! -f "$folder/node_modules/.package-lock.json" ] || [ "$folder/package-lock.json" -nt "$folder/node_modules/.package-lock.json" ]; then
    echo "installing npm packages of $folder (each of these folders takes 30 to 120 MB on disk, and up to a minute) ..."
    install "$folder" & # beside the others, and Chromium: most of it is waiting for the network
  fi
done
if ! command -v chromium-headless-shell >/dev/null; then # takes half the processor time of one that has windows
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Chromium's headless shell (about 100 MB to download, a minute) ..."
    apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium-headless-shell fonts-noto-color-emoji >/dev/null
  fi
fi
if ! command -v chromium-headless-shell >/dev/null && ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  echo "NOTE: Chromium is missing: the browser tests will be SKIPPED. On Debian: apt-get install chromium-headless-shell"
fi
# Front ends that the service is tried behind, clocks that are off, a model checker; none is to be started as a service.
for program in nginx caddy faketime spin; do
  if ! command -v $program >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing $program ..."
    apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $program >/dev/null
  fi
  command -v $program >/dev/null || echo "NOTE: $program is missing: its test will be SKIPPED. On Debian: apt-get install $program"
done
wait
if [ "$HYPOTHESIS_PROFILE" = nightly ] || [ "$HYPOTHESIS_PROFILE" = weekly ]; then # a cluster of PostgreSQL that looks after itself
  if ! command -v patroni >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Patroni and etcd ..."
    apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends patroni python3-etcd etcd-server >/dev/null
  fi
  command -v patroni >/dev/null || echo "NOTE: Patroni is missing: its test will be SKIPPED. On Debian: apt-get install patroni etcd-server"
fi
