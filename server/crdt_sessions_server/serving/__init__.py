"""Sockets: the listener, and WebSockets of the sync endpoint. All else is Hypercorn's and Quart's."""
