"""What can be rented now, at what total price."""
