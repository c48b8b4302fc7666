"""Coverage-guided fuzzing of what reads other people's texts: tests/fuzz/run."""
