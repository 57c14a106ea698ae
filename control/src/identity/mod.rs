//! CGA (RFC 3972) and HBA (RFC 5535): pure functions from keys and prefixes to addresses, and back to a verdict.
