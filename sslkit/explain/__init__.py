"""What a recipe will do and cost, and what speaks against it, without running it."""
