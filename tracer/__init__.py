"""mkwrite: a live tracer of the kernel's page_mkwrite."""
