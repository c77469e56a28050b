"""From stored points to tidy tables."""
