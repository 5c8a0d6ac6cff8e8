#!/usr/bin/env bash
# Install the Debian packages that the tests need and that are missing. Without root rights: print the command.
set -euo pipefail
packages=(
  ca-certificates chromium curl openssl python3-venv
  haproxy mosquitto mosquitto-clients libnss-wrapper nginx-light rabbitmq-server
  wrk
)
# Debian's npm conflicts with a Node.js from another source, so an existing npm is kept.
command -v npm >/dev/null || packages+=(nodejs npm)
command -v keytool >/dev/null || packages+=(default-jre-headless)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "Missing: ${missing[*]}. Install them: sudo apt-get install ${missing[*]}" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
