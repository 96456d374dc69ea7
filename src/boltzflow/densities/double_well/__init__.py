"""The paper's quantum particle in a double well, with its exact solution by the transfer matrix."""
