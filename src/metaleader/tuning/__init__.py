"""Tuning: what is searched, the studies that search it, and the page on what they found."""
