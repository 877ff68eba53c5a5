"""What is known of each operator: one row, and what is derived from it."""
