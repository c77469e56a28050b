"""The page to explore: one file with the advisor's rule in it, which a reader can ask again at another bound."""
