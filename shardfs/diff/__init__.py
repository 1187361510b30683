"""What changed between two trees."""
