#!/usr/bin/env bash
# Runs programs on an emulated processor with AVX-512, BF16 and AMX: see README.md beside this file.
#
#     emulate.sh BOCHS KERNEL COMMANDS PROGRAM...
#
# BOCHS is the patched emulator, KERNEL a Linux kernel image (5.16 or newer, for AMX). Programs lie in
# /programs of the emulated machine, under their names without cargo's hash, with the libraries that
# they need. COMMANDS is a file of shell commands, which run in /tmp; what they print comes to stdout.
# The folder that the variable FILES names, if it is set, is laid over the machine's files.
set -euo pipefail

[ $# -ge 4 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2; }
bochs=$(realpath "$1") kernel=$(realpath "$2") commands=$(realpath "$3")
shift 3
for tool in busybox cpio xorriso; do
    command -v "$tool" >/dev/null || { echo "$tool is not installed" >&2; exit 1; }
done

work=$(mktemp -d)
follower=
trap '[ -z "$follower" ] || kill "$follower" 2>/dev/null || true; rm -rf "$work"' EXIT
root=$work/root iso=$work/iso
mkdir -p "$root"/{bin,proc,dev,tmp,programs,lib64} "$iso/isolinux"

cp "$(command -v busybox)" "$root/bin/busybox"
for program in "$@"; do
    name=$(basename "$program" | sed 's/-[0-9a-f]\{16\}$//')
    strip -o "$root/programs/$name" "$program"
    # Libraries, the loader among them, where the program looks for them.
    { ldd "$program" || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
        mkdir -p "$root$(dirname "$library")"
        cp -L "$library" "$root$library"
    done
done
if [ -n "${FILES:-}" ]; then
    cp -r "$FILES/." "$root"
fi
cp "$commands" "$root/commands"
cat > "$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
export PATH=/programs:/bin HOME=/tmp RUST_TEST_THREADS=1
echo "--- begin"
cd /tmp
/bin/busybox sh /commands
echo "--- end $?"
/bin/busybox sleep 1
/bin/busybox poweroff -f
INIT
chmod +x "$root/init"
(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) > "$iso/initrd.gz"

cp "$kernel" "$iso/vmlinuz"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$iso/isolinux/"
# no5lvl: Bochs 3.0 cannot leave system management mode with five-level paging. max_cstate, nomwait: it
# has no idle states that give tiles back.
cat > "$iso/isolinux/isolinux.cfg" <<'BOOT'
DEFAULT linux
PROMPT 0
LABEL linux
 KERNEL /vmlinuz
 INITRD /initrd.gz
 APPEND console=ttyS0 quiet nokaslr no5lvl intel_idle.max_cstate=0 idle=nomwait mitigations=off panic=1
BOOT
xorriso -as mkisofs -quiet -o "$work/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$iso" 2>/dev/null

touch "$work/serial"
cat > "$work/bochsrc" <<CONFIG
config_interface: textconfig
display_library: nogui
megs: 2048
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
cpu: model=sapphire_rapids, count=1, ips=200000000, reset_on_triple_fault=0
clock: sync=none
com1: enabled=1, mode=file, dev=$work/serial
log: $work/log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
CONFIG
tail -f "$work/serial" &
follower=$!
"$bochs" -q -f "$work/bochsrc" > "$work/bochs.out" 2>&1 || true
sleep 1
grep -q -e '--- end 0' "$work/serial"
