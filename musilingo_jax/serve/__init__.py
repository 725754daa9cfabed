"""A server that speaks the protocol of OpenAI: questions about songs over HTTP."""
