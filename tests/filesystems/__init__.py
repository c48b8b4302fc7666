"""Every filesystem whose mappings can be written: what tracing sees on each, and what a full disk does."""
