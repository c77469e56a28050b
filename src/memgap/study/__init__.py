"""Everything that a configuration asks for, expanded: points, sessions, plans."""
