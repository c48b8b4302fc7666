"""What leaves the tracer for other programs: JSON and Prometheus metrics."""
