"""How things are shown: words, language, style, progress."""
