"""A policy run over recorded bags: what it would have been asked, what it says, and how far that is from the record."""
