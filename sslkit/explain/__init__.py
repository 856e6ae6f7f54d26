"""What a recipe will do and cost, and what is recommended to change, without running it."""
