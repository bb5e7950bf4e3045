"""What a package that extends petra looks like: one of each kind."""
