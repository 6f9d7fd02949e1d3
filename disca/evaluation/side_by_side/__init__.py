"""Methods side by side: what is to be compared, the runs of it, and the table and picture that come of them."""
