"""Tables from the single requests of stored points."""
