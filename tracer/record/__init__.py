"""What the exporter keeps on disk, to be looked back at: docs/record.md describes the format."""
