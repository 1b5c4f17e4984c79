"""Many runs: statistics over seeds, tables, figures and a page."""
