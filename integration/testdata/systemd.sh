#!/bin/sh
# Boots systemd in namespaces of its own, and in a cgroup of the name that is
# given. All of it ends with this process.
set -eu

if [ "${2:-}" = "" ]; then
	# Its cgroups are below one of ours, not among those of the machine.
	while IFS=: read -r id name path; do
		case "$id:$name" in
		0:) hierarchy=/sys/fs/cgroup && [ -f $hierarchy/cgroup.procs ] || hierarchy=/sys/fs/cgroup/unified ;;
		*:name=systemd) hierarchy=/sys/fs/cgroup/systemd ;;
		*) continue ;;
		esac
		[ -d "$hierarchy" ] || continue
		mkdir -p "$hierarchy$path/$1"
		echo $$ >"$hierarchy$path/$1/cgroup.procs"
	done </proc/self/cgroup
	exec unshare --fork --kill-child=KILL --pid --mount --uts --ipc --cgroup --mount-proc "$0" "$1" inside
fi

mount --make-rprivate /
v1=yes
[ -f /sys/fs/cgroup/cgroup.procs ] && v1=no
if [ $v1 = yes ]; then
	mount -t tmpfs tmpfs /sys/fs/cgroup
	mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified
	mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
	mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
else
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/systemd/journald.conf.d
# These would leave a link in /dev and listen to the kernel's audit.
ln -s /dev/null /run/systemd/system/systemd-journald-dev-log.socket
ln -s /dev/null /run/systemd/system/systemd-journald-audit.socket
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitBurst=0\n' >/run/systemd/journald.conf.d/test.conf
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\nAfter=systemd-journald.service\n' >/run/systemd/system/test.target
export container=test
exec /usr/lib/systemd/systemd --system --unit=test.target --log-target=journal-or-kmsg --show-status=no
