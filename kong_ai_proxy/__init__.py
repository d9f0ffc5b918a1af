"""Kong's plugins ai-proxy and ai-proxy-advanced as a plugin server for any Kong."""

__version__ = "0.1.0"
