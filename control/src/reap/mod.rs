//! REAP (RFC 5534): failure detection and locator-pair exploration as a pure state machine.
