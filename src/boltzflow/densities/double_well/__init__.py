"""The paper's quantum particle in a double well, solved exactly by its transfer matrix."""
