"""What a developer needs and no server gets."""
