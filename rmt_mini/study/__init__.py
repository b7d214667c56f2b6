"""What came of it: estimates before a run, figures and a report after it."""
