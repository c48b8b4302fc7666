"""The benchmark: what tracing costs, beside what people would use instead. See docs/performance.md."""
