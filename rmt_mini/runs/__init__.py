"""Whole runs and what is made of several: the run folder, resume, comparisons, exams."""
