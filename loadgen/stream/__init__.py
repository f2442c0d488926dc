"""One stream: the socket, HTTP, server-sent events, and the record that is made of them."""
