// Imported before everything that reads testbed/layout.ts: makes this file's cluster one of IPv6 alone.
process.env["TELEPRESENCE_TESTBED_FAMILY"] = "ipv6";
