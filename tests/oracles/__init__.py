"""Independent references: closed forms and other packages, never the code under test."""
