"""A baseline without a vision-language model: OCR, and rules that find a key and the value beside it."""
