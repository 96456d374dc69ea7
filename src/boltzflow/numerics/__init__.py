"""Arrays, compilation and argument checks; knows no density."""
