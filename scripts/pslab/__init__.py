"""The lab: two sites, four providers and a core, all in network namespaces of this machine."""
