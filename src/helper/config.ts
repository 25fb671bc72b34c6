// What the helper takes from its environment: only who called sudo, which sudo itself has set.

/** The user that started sudo, or undefined when the helper was started by root itself. */
export function sudoUser(): number | undefined {
  const text = process.env["SUDO_UID"];
  return text !== undefined && /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}
