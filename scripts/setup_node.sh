#!/bin/sh
# Installs what the interop and browser tests need: npm packages, and Chromium where apt-get is at hand.
# Whatever cannot be had is said here, and its tests are reported as skipped.
cd "$(dirname "$0")/.." || exit 1

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Node ..."
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
for folder in tests/interop/js tests/gateways/js examples/web examples/gateways; do
  if [ ! -f "$folder/node_modules/.package-lock.json" ] || [ "$folder/package-lock.json" -nt "$folder/node_modules/.package-lock.json" ]; then
    echo "installing npm packages of $folder ..."
    npm --prefix "$folder" ci --silent --no-audit --no-fund || {
      echo "NOTE: npm could not install the packages of $folder: tests that need them will be SKIPPED."
      exit 0
    }
    touch "$folder/node_modules/.package-lock.json"
  fi
done
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing Chromium ..."
    apt-get update -qq && apt-get install -y -qq chromium fonts-noto-color-emoji >/dev/null
  fi
fi
if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
  echo "NOTE: Chromium is missing: the browser tests will be SKIPPED. On Debian: apt-get install chromium"
fi
