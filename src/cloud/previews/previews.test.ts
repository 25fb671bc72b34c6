// On SQLite; test/services does the same on PostgreSQL.
import { openMemoryDatabase } from "#cloud/storage/open-memory.fake.ts";
import { previewsContract } from "./previews.contract.ts";

previewsContract("SQLite", openMemoryDatabase);
