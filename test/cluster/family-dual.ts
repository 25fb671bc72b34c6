// Imported before everything that reads testbed/layout.ts: makes this file's cluster one of both families.
process.env["TELEPRESENCE_TESTBED_FAMILY"] = "dual";
