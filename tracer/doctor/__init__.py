"""Whether tracing works here."""
