"""An outside baseline: an OCR reader, and rules that find the key a question names and the value beside it."""
