"""What hears of a study while it runs, and carries it elsewhere: `base` has the contract, `table`
the names that study files use, `hub` passes events on.
"""
