#!/usr/bin/env bash
# Debian packages that the tests need. Installs those that are missing, where it may.
set -euo pipefail
packages=(
  ca-certificates chromium curl openssl python3-venv
  haproxy mosquitto mosquitto-clients libnss-wrapper nginx-light rabbitmq-server
  wrk
)
# Node.js often comes from elsewhere than Debian, and then Debian's npm cannot stand beside it.
command -v npm >/dev/null || packages+=(nodejs npm)
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
