"""Results on disk -> tables, figures and one HTML page. Reads what `evaluate` wrote; never trains."""
