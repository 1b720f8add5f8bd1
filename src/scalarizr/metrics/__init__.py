"""What the agent counts, and the page that shows it to a monitoring system."""
