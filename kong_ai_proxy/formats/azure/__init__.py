"""What Azure has of its own beside OpenAI's format."""
