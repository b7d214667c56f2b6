"""What there is to read and to answer: corpora of documents, the micro world, checkable questions."""
