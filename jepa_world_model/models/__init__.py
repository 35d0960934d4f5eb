"""The parts of the world model, one module a parameter group."""
