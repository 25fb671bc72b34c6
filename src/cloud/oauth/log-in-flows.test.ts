// The ways in, on SQLite; test/services goes them on PostgreSQL.
import { openMemoryDatabase } from "#cloud/storage/open-memory.fake.ts";
import { logInContract } from "./log-in-flows.contract.ts";

logInContract("SQLite", openMemoryDatabase);
