"""Schedules that find themselves: a MODEL's runs are measured, and lists of anchors tried on them."""
