"""The service: crdt-sessions over HTTP and WebSocket."""
