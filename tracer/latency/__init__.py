"""What is slow: where the time of calls went, and which have not returned."""
