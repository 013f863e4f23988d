#!/bin/bash
# The first process of a machine, in namespaces of its own (mount, pid, net, uts, ipc). The world it builds is a tmpfs
# in its own mount namespace: nothing of it is seen outside, and all of it goes when this process goes.
# Arguments: root directory, disk size, name, address/prefix, gateway, ssh port, layers (a:b), binds (a:b), command...
set -eu
root=$1 size=$2 name=$3 address=$4 gateway=$5 port=$6 layers=$7 binds=$8
shift 8

echo born
read -r _   # the host hangs the network cable in; where the host has died meanwhile, this ends here
ip link set lo up
ip addr add "$address" dev eth0
ip link set eth0 up
hostname "$name"

mount -t tmpfs -o "size=$size,mode=755" cloud "$root"
mkdir "$root/.over"
over() {  # a folder of this machine, writable in a layer of its own
  local lower="" layer part=${1#/}
  IFS=: read -ra all <<<"$layers"
  for layer in "${all[@]}"; do [ -d "$layer/$part" ] && lower+="$layer/$part:"; done
  [ -d "/$part" ] && [ "$part" != root ] && lower+="/$part:"
  mkdir -p "$root/$part"
  [ -n "$lower" ] || return 0
  local slot="$root/.over/${part//\//_}"
  mkdir -p "$slot/upper" "$slot/work"
  mount -t overlay overlay -o "lowerdir=${lower%:},upperdir=$slot/upper,workdir=$slot/work" "$root/$part"
}
for part in bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$part" ]; then cp -P "/$part" "$root/$part"; elif [ -d "/$part" ]; then over "$part"; fi
done
for part in usr etc root var/lib/dpkg var/lib/apt; do over "$part"; done
chmod 700 "$root/root"
mkdir -p "$root"/{proc,sys,dev,run/sshd,run/lock,home,mnt,opt,srv,tmp,workspace,var/tmp,var/log,var/cache/apt/archives/partial,var/lib}
chmod 1777 "$root/tmp" "$root/var/tmp"
ln -s /run "$root/var/run"
[ -e "$root/root/.bashrc" ] || cp "$root"/etc/skel/.[bp]* "$root/root/" 2>/dev/null || true
: >"$root/etc/resolv.conf"
printf '127.0.0.1 localhost\n%s %s\n' "${address%/*}" "$name" >"$root/etc/hosts"
echo "$name" >"$root/etc/hostname"

# What this machine's administrator set up, its packages' sources and keys among it, is not on a rented one; and with no
# source, an image's `apt update` ends at once rather than knock on doors that no machine here can reach.
rm -rf "$root"/etc/apt/{sources.list,sources.list.d,auth.conf,auth.conf.d} "$root"/etc/{pip.conf,environment,gitconfig,npmrc,wgetrc}
rm -rf "$root"/etc/{cron*,krb5.keytab,letsencrypt,ssl/private,wireguard,profile.d} "$root"/var/lib/apt/lists
mkdir -p "$root/etc/profile.d" "$root/etc/apt/sources.list.d" "$root/var/lib/apt/lists/partial"
grep -lsi proxy "$root"/etc/apt/apt.conf "$root"/etc/apt/apt.conf.d/* | xargs -r rm

# A host key of its own; sshd answers on 22 and on the port that the provider announces.
rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/ssh/sshd_config.d/*
ssh-keygen -q -t ed25519 -N '' -C "$name" -f "$root/etc/ssh/ssh_host_ed25519_key"
printf 'Port 22\nPort %s\nUseDNS no\n' "$port" >"$root/etc/ssh/sshd_config.d/cloud.conf"
# A machine has no login sessions of the host's kind: what asks for them is optional there.
sed -i 's/^session\(.*\)required\(.*pam_loginuid.so\)/session\1optional\2/' "$root/etc/pam.d/sshd"

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,ro,bind "$root/proc/sys"   # what the kernel has but once is not the machine's to set
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for node in null zero full random urandom tty; do touch "$root/dev/$node"; mount --bind "/dev/$node" "$root/dev/$node"; done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
mount -t tmpfs -o size=2g tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
IFS=: read -ra all <<<"$binds"
for bind in "${all[@]}"; do
  [ -n "$bind" ] || continue
  mkdir -p "$root$bind"
  mount --rbind "$bind" "$root$bind"
  mount -o remount,ro,bind "$root$bind"
  case "$bind" in /root/*) chmod 711 "$root/root" ;; esac   # an image's programs are for all its users
done

# The host's own mounts are let go of: what remains to be seen is the machine.
mkdir "$root/.host"
cd "$root"
pivot_root . .host
umount -l /.host
rmdir /.host
cat /etc/ssh/ssh_host_ed25519_key.pub
exec </dev/null >/var/log/container.log 2>&1
cd /root
unset LAUNCHER_SIMULATED_CLOUD   # whose it is, its first process says; no real machine has it
"$@" &
while :; do sleep 2147483 & wait; done   # bash, as process 1, buries whatever is orphaned to it
