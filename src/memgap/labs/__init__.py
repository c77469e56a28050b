"""Labs: a question, arms in random blocks, and claims that end in a verdict.

- `arguments.yaml` is the section of the configuration, docs/labs/form.md its reference.
- `plan` expands and checks a lab: every arm at every choice of axis values is a cell with the record of its first
  block; the plan is all that a run needs, also on a machine without Snakemake. `claims` parses what is claimed.
- `points` says which points there are: a block is a repeat; rates that are shares of a capacity follow from the stored
  point of that capacity, so they are known once it is measured.
- `run` measures blocks (`run_lab.py`, `python -m memgap.labs plan`), with the servers of `memgap.tuning.servers`.
- `values` reads the stored points as rows, one a cell, block and phase, with the columns of the tables of points;
  `claims` makes effects and intervals of rows, `expected` says what theory expects, `verdicts` makes the tables
  `results/labs/NAME.csv`, `NAME.claims.csv` and, of all labs, `claims.csv` and `verdicts.md`.
- `memgap.figures.lab` draws what a lab's `figure` declares.

A new lab is one YAML file. A new metric is a column of a table of points; a new expectation a function in `expected`.
"""
