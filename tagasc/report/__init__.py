"""Results of an experiment: statistics, tables, figures and the text of the report."""
