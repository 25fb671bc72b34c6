// Entries of the audit log about a laptop's login.
import { audit } from "#cloud/audit.ts";
import { findPerson } from "#cloud/identity/people.ts";
import type { Parts } from "#cloud/web/route.ts";
import type { Granted } from "./grants.ts";

export async function auditLogin(
  { database, clock }: Parts,
  { personId, device }: Granted,
  action: "login.laptop" | "login.reused" | "login.revoked",
): Promise<void> {
  const person = await findPerson(database, personId);
  await audit(database, { action, person, subject: device }, clock.wallMs());
}
