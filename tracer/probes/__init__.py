"""Which hooks, on which backend; compiling, loading and attaching them; the maps' layout."""
