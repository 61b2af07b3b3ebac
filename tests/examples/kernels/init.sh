#!/bin/busybox sh
# The first process of an emulated machine: it runs the scripts that come over a virtio port. Each
# comes as a line of base64; the answer is its exit status, how many bytes it wrote, and these.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs security /sys/kernel/security
# What udev does on a machine of its own.
for module in virtio_pci virtio_console virtio_net; do
  modprobe "$module"
done
ip link set lo up
port=/dev/vport0p1
until [ -c "$port" ]; do
  sleep 0.1
  port=$(find /dev -name 'vport*p1')
done
exec 3<>"$port"
echo ready >&3
while read -r line <&3; do
  echo "$line" | base64 -d >/run/script
  # Not busybox, which would take its own programs for those of the same name.
  dash /run/script </dev/null >/run/output 2>&1 3<&-
  echo "$? $(stat -c %s /run/output)" >&3
  cat /run/output >&3
done
