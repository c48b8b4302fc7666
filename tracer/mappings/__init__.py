"""What needs no tracing: who maps what, and what may still be asked of the filesystems."""
