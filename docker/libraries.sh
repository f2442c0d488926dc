#!/bin/sh
# Put shared libraries of Debian's packages into /libraries, in an image's build stage: `libraries.sh PACKAGE LIBRARY`.
# $APT_MIRROR, if set, stands in for http://deb.debian.org.
set -eu
if [ -n "${APT_MIRROR:-}" ]; then
  find /etc/apt -name '*.list' -o -name '*.sources' | xargs sed -i "s|http://deb.debian.org|$APT_MIRROR|g"
fi
apt-get update -qq
apt-get install -qq --yes --no-install-recommends "$1"
mkdir /libraries
cp --dereference /usr/lib/*/"$2" /libraries/
