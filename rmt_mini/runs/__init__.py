"""Whole runs and what stands on several of them: the run folder, resume, comparisons, exams."""
