"""From a run to its report: estimates, the verdict, text, HTML and figures."""
