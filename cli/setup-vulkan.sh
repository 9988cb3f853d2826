#!/bin/sh
# Installs the Vulkan loader and Mesa's software driver (lavapipe) on Debian or Ubuntu, so that Dawn finds a WebGPU
# adapter on a machine without a GPU. Called by bootstrap.mjs when there is no adapter; safe to run again by hand.
# Exit status: 0 the driver is installed or none is needed, 1 it is not and the last lines say what to do.
set -u

min_mesa=23.2 # Debian 12's own 22.3.6 lacks the dynamic indexing features that Dawn requires of a device
packages="libvulkan1 mesa-vulkan-drivers libstdc++6"
log=$(mktemp)

say() { echo "setup-vulkan: $*"; }
give_up() {
  for line in "$@"; do say "$line"; done
  exit 1
}
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# "1:25.0.7-2~bpo12+1" -> "25.0.7"; empty when the package is not installed.
installed_mesa() {
  dpkg-query -W -f '${db:Status-Status} ${Version}\n' mesa-vulkan-drivers 2>/dev/null |
    sed -n 's/^installed \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p'
}

driver_files() { ls /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json 2>/dev/null; }

# dawn.node is linked against glibc 2.34; on musl `getconf` knows no GNU_LIBC_VERSION.
require_glibc() {
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | tr -cd '0-9.')
  at_least "${glibc:-0}" 2.34 && return
  give_up "WebGPU's native module needs glibc 2.34 or newer; this system has ${glibc:-another C library}." \
    "Use Debian 12, Ubuntu 22.04, Fedora 36 or newer."
}

as_root=""
require_root() {
  [ "$(id -u)" = 0 ] && return
  if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root="sudo -n"; return; fi
  give_up "not root, and sudo asks for a password. Run this once, then start again:" "  sudo sh $0"
}

apt() {
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@"
}

update() { apt update >>"$log" 2>&1 || say "apt-get update failed, going on all the same"; }

# Debian 12 needs Mesa from bookworm-backports: taken from the mirror that the machine already uses for bookworm. apt
# lists its sources only after an update.
enable_backports() {
  targets=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null)
  echo "$targets" | grep -q '^bookworm-backports ' && return
  mirror=$(echo "$targets" | sed -n 's/^\(bookworm\|oldstable\|stable\) //p' | head -n 1)
  [ -n "$mirror" ] || give_up "no apt source for Debian bookworm found; add bookworm-backports yourself and run again."
  echo "deb $mirror bookworm-backports main" |
    $as_root tee /etc/apt/sources.list.d/gifgrad-backports.list >/dev/null
  say "added $mirror bookworm-backports to the apt sources"
  update
}

case $(uname -s) in
Linux) ;;
Darwin) say "macOS: WebGPU runs on Metal, nothing to install."; exit 0 ;;
*) say "$(uname -s): WebGPU runs on the system's own graphics driver, nothing to install."; exit 0 ;;
esac
require_glibc
command -v apt-get >/dev/null 2>&1 || give_up \
  "not Debian or Ubuntu: install the Vulkan loader and Mesa's software driver, version $min_mesa or newer, yourself." \
  "  Fedora: vulkan-loader mesa-vulkan-drivers   Arch: vulkan-icd-loader vulkan-swrast   openSUSE: libvulkan1 libvulkan_lvp"

mesa=$(installed_mesa)
if [ -n "$mesa" ] && at_least "$mesa" "$min_mesa" && [ -n "$(driver_files)" ]; then
  [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || give_up \
    "Mesa $mesa is installed, but VK_DRIVER_FILES=${VK_DRIVER_FILES:-} VK_ICD_FILENAMES=${VK_ICD_FILENAMES:-} selects" \
    "other drivers. Unset them, or point them to a driver's .json file that exists."
fi

require_root
say "installing $packages (about 150 MB on disk); output in $log"
update
release=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}")
from=""
if [ "$release" = bookworm ]; then enable_backports; from="-t bookworm-backports"; fi
# A package that is there without its driver file was damaged by hand: unpack it again.
[ -n "$mesa" ] && [ -z "$(driver_files)" ] && from="$from --reinstall"

if ! apt install -y --no-install-recommends $from $packages >>"$log" 2>&1; then
  tail -n 5 "$log"
  give_up "apt-get install failed (above); mend it, then run again: sh $0"
fi
mesa=$(installed_mesa)
at_least "${mesa:-0}" "$min_mesa" || give_up \
  "Mesa ${mesa:-(none)} is older than $min_mesa: enable $release-updates (Ubuntu) or $release-backports (Debian)" \
  "in the apt sources, then run again: sh $0"
say "Mesa $mesa is installed"
