"""What is trained (paper, §3): the field V, the path f_t, the rate C_t, the residual, the losses and the flow."""
