"""What a running study looks like to the person who waits: a live block on a terminal, a box in a
notebook, lines of a log anywhere else. One account of events, three ways to show it.
"""
