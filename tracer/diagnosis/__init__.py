"""Why a write failed: its class, its errno, the cause and the remedy. No I/O."""
