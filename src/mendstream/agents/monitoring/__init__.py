"""The monitoring agent in its two roles: the joiner counts right and wrong predictions, the judge reads counts only."""
