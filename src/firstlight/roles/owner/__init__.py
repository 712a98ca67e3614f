"""The owner: orders, deploys plans, and sees his fleet come up. A distributor is an owner too."""
