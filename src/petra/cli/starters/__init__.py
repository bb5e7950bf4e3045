"""What `petra init` writes: a module for each kind of model, as it is copied.

Each has a function `model` that returns a trained network and a function `task` with its data, runs
as it is on made-up data, and marks with YOURS what to replace.
"""
