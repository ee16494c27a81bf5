"""The server: SliME behind the API of OpenAI, with continuous batching (extra `serve`)."""
