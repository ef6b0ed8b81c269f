"""Sets and protocols to figures."""
