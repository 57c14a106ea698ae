"""A strict reader of Shim6 captures, written from RFC 5533, 5534, 5535 and 3972 and sharing no code with the product.

Where a receiver has to be lenient, this reader is not: it judges what a sender may put on the wire.
"""
