"""Durable sessions: one shared Yjs document, presence and a lifecycle."""
