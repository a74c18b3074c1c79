"""Prices of instance types, as packaged: a table with its date and region."""
