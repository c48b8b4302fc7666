"""What this host has: mounts, control groups, processes."""
