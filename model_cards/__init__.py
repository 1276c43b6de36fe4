"""Model cards, one per checkpoint."""
