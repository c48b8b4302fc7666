"""The exporter over HTTP: metrics, and a page for people."""
