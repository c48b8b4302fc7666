"""From the kernel's numbers to the vocabulary."""
