"""A page and a JSON endpoint for one network."""
