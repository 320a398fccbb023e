"""An OpenAI-compatible server of a base and its adapters, by vLLM."""
