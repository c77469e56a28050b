"""The paper's figures, one module each, named after them; what they share is beside them.

Figures are files. A notebook or a shell may have chosen a screen's backend in MPLBACKEND for the programs below it;
matplotlib looks for that when it is imported, and fails where it is not installed. So the choice is taken back before.
"""

import os

os.environ["MPLBACKEND"] = "Agg"
