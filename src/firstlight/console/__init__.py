"""What people look at while things happen."""
