"""The paper's tables and claims, generated from the sweeps' tables."""
