"""The one trainer and what it is made of."""
