"""What is known of each operator: its class, and what its inputs reach."""
