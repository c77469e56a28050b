"""The kinds of measurement, one folder each; `memgap.kinds.registry` lists them."""
