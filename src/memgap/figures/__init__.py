"""The paper's figures, one module each, named after them; what they share is beside them."""
