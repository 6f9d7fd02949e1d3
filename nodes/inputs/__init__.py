"""What nodes share: inputs, what is made of them, and that each is what its schema asks for."""
