"""The embedded machine: a Docker engine of one's own in a QEMU virtual machine."""
