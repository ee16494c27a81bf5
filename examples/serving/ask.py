"""Ask a server about an image, and print the answer as it comes: python ask.py IMAGE QUESTION [ADDRESS]."""

import base64
import mimetypes
import sys
from pathlib import Path

from openai import OpenAI

if len(sys.argv) < 3:
    sys.exit("usage: python ask.py IMAGE QUESTION [ADDRESS], for example http://127.0.0.1:8000/v1")
image, question, address = (*sys.argv[1:], "http://127.0.0.1:8000/v1")[:3]
kind = mimetypes.guess_type(image)[0] or "application/octet-stream"
uri = f"data:{kind};base64,{base64.b64encode(Path(image).read_bytes()).decode()}"
content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": question}]
client = OpenAI(base_url=address, api_key="none")
for event in client.chat.completions.create(
    model=client.models.list().data[0].id, messages=[{"role": "user", "content": content}], stream=True
):
    print(event.choices[0].delta.content or "", end="", flush=True)
print()
