"""A study while it runs, seen from another process: in a browser on this machine, or a terminal."""
