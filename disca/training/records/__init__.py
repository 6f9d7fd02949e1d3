"""What a run leaves behind to be read: its folder, log and curves."""
