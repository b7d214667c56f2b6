"""What touches a model: loading, the two ways of asking for a token, the document tree, sampling."""
