// The login at a cloud server, in `status`: nothing where nobody ever logged in.
import type { CloudLogin } from "#login/credentials.ts";

export function formatLogin(login: CloudLogin | undefined): readonly string[] {
  if (login === undefined) return [];
  const { name, url, ended } = login;
  return [ended === true ? `Cloud: Login expired (${name} at ${url})` : `Cloud: Logged in as ${name} at ${url}`];
}

export function loginToJson(login: CloudLogin | undefined): object | undefined {
  if (login === undefined) return undefined;
  return { url: login.url, name: login.name, email: login.email, logged_in: login.ended !== true };
}
