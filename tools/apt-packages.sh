#!/bin/sh
# The Debian packages that the tests use beside Python, one a line:
#   apt-get install --no-install-recommends $(tools/apt-packages.sh)
set -eu
cat <<'PACKAGES'
chromium
nodejs
npm
openssl
PACKAGES
