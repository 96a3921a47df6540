"""Other clients' interfaces over the kernel, so that programs written for them keep their code."""
