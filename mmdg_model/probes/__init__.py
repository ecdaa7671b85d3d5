"""Small classifiers that look for what should not be there. Nothing heavy loads here."""
