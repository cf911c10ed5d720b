"""What people look at: figures, reports, explanations."""
