"""``make install``, ``make uninstall`` and what lies between, in root file systems of their own."""
