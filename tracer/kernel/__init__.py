"""What this kernel is: layout, symbols, features and limits."""
