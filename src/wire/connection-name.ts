// What a connection may be called where there are several: `connect --name dev`. A folder and a DNS label of that name.

/** Of the connection that was given none. */
export const unnamedConnection = "default";

/** 40 characters at most: sockets in the folder have to fit a Unix socket's address. */
export function isConnectionName(text: string): boolean {
  return /^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(text);
}
