// Where the root helper listens when it was set up as a service (DESIGN §7): one socket a user, which systemd makes and
// that user alone may connect to. Each connection is one helper, with the connection as its standard input.

/** protocol: root's directory of those sockets. */
export const helperServiceDirectory = "/run/telepresence-helper";
/** protocol: root's own copy of the program. */
export const helperServiceProgram = "/opt/telepresence-helper";

export function helperServiceSocket(uid: number): string {
  return `${helperServiceDirectory}/${uid}.sock`;
}

/** systemd's unit for a user's socket, without its folder. */
export function helperServiceUnit(uid: number): string {
  return `telepresence-helper-${uid}.socket`;
}

/** The user whose socket the unit is. */
export function userOfHelperUnit(file: string): number | undefined {
  const text = /^telepresence-helper-(\d{1,10})\.socket$/.exec(file)?.[1];
  return text === undefined ? undefined : Number(text);
}
