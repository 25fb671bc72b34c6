// The login at a cloud server, in `status`: nothing where nobody ever logged in.
import type { CloudLogin } from "#login/credentials.ts";
import type { CloudStatus } from "#wire/preview.ts";
import { printable } from "./filter.ts";

/** `cloud` is what the daemon knows of that server, while it is connected. */
export function formatLogin(login: CloudLogin | undefined, cloud: CloudStatus | undefined): readonly string[] {
  if (login === undefined) return [];
  const { name, url, ended } = login;
  if (ended === true) return [`Cloud: Login expired (${name} at ${url})`];
  const reached = cloud?.url === url ? describeReached(cloud) : "";
  return [`Cloud: Logged in as ${name} at ${url}${reached}`];
}

const reachedTexts = {
  connected: "reached by the cluster",
  connecting: "not reached by the cluster yet",
  away: "cannot be used now",
} as const;

function describeReached({ state, message }: CloudStatus): string {
  return `, ${reachedTexts[state]}${message === "" ? "" : `: ${printable(message)}`}`;
}

export function loginToJson(login: CloudLogin | undefined, cloud: CloudStatus | undefined): object | undefined {
  if (login === undefined) return undefined;
  const { url, name, email } = login;
  const tunnel = cloud?.url === url ? { cluster_state: cloud.state, cluster_message: cloud.message } : {};
  return { url, name, email, logged_in: login.ended !== true, ...tunnel };
}
