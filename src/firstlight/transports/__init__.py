"""HTTP and CoAP: they carry bytes and never decide."""
