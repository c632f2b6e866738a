"""The page of a plan: one file that answers first, opens every run, and asks the network for nothing."""
