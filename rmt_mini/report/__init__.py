"""Results as tables, sentences and figures; runs nothing."""
