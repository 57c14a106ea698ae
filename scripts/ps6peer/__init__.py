"""A second, independent Shim6: a small host that speaks RFC 5533, 5534, 5535 and 3972, to try the box against.

It was written from the RFC texts alone and shares no code with the product, nor with the decoder in `shim6dec`.
"""
