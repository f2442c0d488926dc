"""The Chinese of the page's pictures and tables, by the English text."""

CHINESE: dict[str, str] = {}
