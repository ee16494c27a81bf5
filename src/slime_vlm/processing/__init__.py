"""From images and chats to model inputs: image processor, tokenization, chat styles, collation."""
